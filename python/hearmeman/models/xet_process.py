"""The process that xet.py starts: it takes an order on standard input and fetches into the staged file.

The order is one JSON object; how far it is, it tells on the pipe that the order names. It runs by its path and imports nothing of ours, so that it starts quickly and from anywhere.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time


def main() -> None:
    """Fetch what standard input orders; end when it closes, as it does when the parent dies, however it dies."""
    order = json.loads(sys.stdin.readline())
    # Its log and its cache go where the staged file is, which is sure to be writable and is cleared up.
    os.environ["HF_HOME"] = os.environ["HF_XET_CACHE"] = os.path.dirname(order["path"]) + "/.xet"  # noqa: PTH120
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    import hf_xet  # type: ignore[import-untyped]

    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()
    descriptor = os.open(order["path"], os.O_WRONLY)
    group = hf_xet.XetSession().new_download_stream_group(
        token_refresh_url=order["refresh"], token_refresh_headers=order["headers"]
    )
    info = hf_xet.XetFileInfo(order["hash"], order["size"])
    position, told, telling = order["start"], 0.0, order["telling"]
    for data in group.download_stream(info, start=order["start"], end=order["end"]):
        view = memoryview(data)
        while view:
            count = os.pwrite(descriptor, view, position)
            position, view = position + count, view[count:]
        if time.monotonic() - told > 0.1:
            told = time.monotonic()
            os.write(telling, b"%d\n" % position)
    os.write(telling, b"%d\n" % position)


if __name__ == "__main__":
    main()
