"""Start the stand-in ComfyUI as the real one is started: `python main.py --listen … --port … --cpu`."""

from __future__ import annotations

import sys
import types
from pathlib import Path


def main() -> int:
    """Serve until a signal ends the process; SIGTERM ends it at once, as it does the real one."""
    # The folder is /opt/comfyui in an image and tests/standin here: its modules get one name in both.
    package = types.ModuleType("standin")
    package.__path__ = [str(Path(__file__).resolve().parent)]
    sys.modules.setdefault("standin", package)
    from standin.server import start

    return start(sys.argv)


if __name__ == "__main__":
    sys.exit(main())
