"""Tests that run side by side never get the same port: once in a hundred runs of 1,000 tests is once too often."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.waiting import PATIENCE

TAKE = "import sys; from support.ports import free_port; print(*[free_port() for _ in range(300)], flush=True); input()"


def test_processes_side_by_side_never_share_a_port() -> None:
    takers = [
        subprocess.Popen(
            [sys.executable, "-c", TAKE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent,
        )
        for _ in range(4)
    ]
    taken = [port for taker in takers if taker.stdout for port in taker.stdout.readline().split()]
    for taker in takers:
        taker.communicate("\n", timeout=PATIENCE)
    assert len(taken) == len(set(taken)) == 1200
