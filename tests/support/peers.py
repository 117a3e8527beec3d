"""What the benches compare with and no test needs: locked by hash, in an environment of its own below the work folder."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from support.repository import ROOT

LOCK = ROOT / "tests/peers.lock"


def peer(command: str, folder: Path) -> Path:
    """The peer's command; its environment is made in `folder` once for each lock."""
    stamp = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]
    place = folder / stamp
    if not (place / "whole").exists():
        print(f"installing {LOCK.relative_to(ROOT)}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        words = ["-m", "pip", "install", "-qq", "--disable-pip-version-check", "--require-hashes", "-r", str(LOCK)]
        subprocess.run([str(place / "bin/python"), *words], check=True, env=dict(os.environ))
        (place / "whole").touch()
    return place / "bin" / command
