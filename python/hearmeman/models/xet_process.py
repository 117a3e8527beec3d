"""The process that xet.py starts: takes one JSON object on standard input, writes into the staged file, says how far it is.

It runs by its path and imports nothing of ours, so that it starts quickly and from anywhere.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time


def main() -> None:
    """Fetch what standard input orders; end when it closes, as it does when the parent dies, however it dies."""
    import hf_xet  # type: ignore[import-untyped]

    order = json.loads(sys.stdin.readline())
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()
    descriptor = os.open(order["path"], os.O_WRONLY)
    group = hf_xet.XetSession().new_download_stream_group(
        token_refresh_url=order["refresh"], token_refresh_headers=order["headers"]
    )
    info = hf_xet.XetFileInfo(order["hash"], order["size"])
    position, told = order["start"], 0.0
    for data in group.download_stream(info, start=order["start"], end=order["end"]):
        view = memoryview(data)
        while view:
            count = os.pwrite(descriptor, view, position)
            position, view = position + count, view[count:]
        if time.monotonic() - told > 0.1:
            told = time.monotonic()
            print(position, flush=True)
    print(position, flush=True)


if __name__ == "__main__":
    main()
