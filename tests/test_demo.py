"""Ctrl-C at any moment of the demo leaves no process and no taken port, and the next run passes."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

from hearmeman_build.build import Image
from hearmeman_build.host import ROOT, WORK
from support.waiting import PATIENCE, wait_for

MOMENTS = 6


def _left(mark: str) -> list[str]:
    """Command lines of living processes that carry the run's mark in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def _start(mark: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "tests/demo.py", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "python:tests", "HEARMEMAN_DEMO_MARK": mark},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_interrupted_at_random_moments(image: Image) -> None:
    begun = time.monotonic()
    whole = _start(f"whole-{uuid.uuid4()}", "--silent")
    text = whole.communicate(timeout=600)[0]
    assert whole.returncode == 0, text
    length = time.monotonic() - begun
    chance = random.Random(20261123)
    for _ in range(MOMENTS):
        mark = str(uuid.uuid4())
        begun, moment = time.monotonic(), chance.uniform(0.3, length)
        run = _start(mark, "--silent")
        try:
            text = run.communicate(timeout=moment)[0]
            # The first one may have had more to do.
            length = time.monotonic() - begun
        except subprocess.TimeoutExpired:
            # What a terminal does: SIGINT to the whole foreground group.
            os.killpg(run.pid, signal.SIGINT)
            text = run.communicate(timeout=PATIENCE)[0]
        assert run.returncode in (0, 130), f"after {moment:.2f} s: {run.returncode}\n{text}"
        with contextlib.suppress(TimeoutError):
            wait_for(lambda mark=mark: _left(mark) == [], "all to be gone", 30)  # type: ignore[misc]
        assert _left(mark) == [], f"after {moment:.2f} s"
    assert not list(WORK.glob("demo-*"))
    last = _start(f"last-{uuid.uuid4()}")
    text = last.communicate(timeout=600)[0]
    assert last.returncode == 0, text
    assert text.count("s3://runpod/outputs/") == 4, "a picture and a sentence, each when it comes and in the table"
