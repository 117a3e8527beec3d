"""What a viewer knows of the pod that runs here: its shells have no secrets, but they know which there are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hearmeman.state_file import read_json

STAND_IN = "***given-at-boot***"
"""Stands for a secret that boot gave to a process of its own; it passes the checks and is never used."""


def is_running(run_dir: Path) -> bool:
    """Tell whether a pod was booted here."""
    return (run_dir / "boot.json").exists()


def with_given(environ: Mapping[str, str], run_dir: Path) -> dict[str, str]:
    """Add a stand-in for each secret that boot gave to a process, so that a viewer does not miss it."""
    given = read_json(run_dir / "boot.json").get("given", [])
    return {**{str(name): STAND_IN for name in given}, **environ}
