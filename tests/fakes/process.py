"""A process that says when it starts and stops, and dies as often as it is asked to; stands for ComfyUI and its like."""

import os
import signal
import sys
import time
from pathlib import Path

EVENTS = Path(os.environ.get("FAKE_EVENTS", "events"))
NAME = os.environ.get("FAKE_NAME", "comfyui")


def note(word: str) -> None:
    """Append one event with its time."""
    with EVENTS.open("a", encoding="utf-8") as file:
        file.write(f"{time.monotonic():.3f} {NAME} {word}\n")


def stop(number: int, frame: object) -> None:
    """Take a while to stop, as the real ones do."""
    note("stopping")
    time.sleep(0.4)
    note("stopped")
    sys.exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    print(f"{NAME} says hello")
    note("started")
    starts = EVENTS.read_text(encoding="utf-8").count(f"{NAME} started")
    if starts <= int(os.environ.get("FAKE_CRASHES", "0")):
        sys.exit(1)
    if "FAKE_EXIT" in os.environ:
        sys.exit(int(os.environ["FAKE_EXIT"]))
    while True:
        time.sleep(60)
