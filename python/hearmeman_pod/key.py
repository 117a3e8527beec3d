"""Finds the API key: RUNPOD_API_KEY, or the file that runpodctl writes; never a command line."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

from hearmeman_pod.errors import UsageError


def find_key(environ: Mapping[str, str], home: Path) -> str:
    """Give the key, or an empty text where there is none.

    Raises:
        UsageError: runpodctl's file cannot be read, or the key holds what no header can.
    """
    key = environ.get("RUNPOD_API_KEY", "").strip() or _from_runpodctl(home / ".runpod/config.toml")
    if not key.isascii() or any(not " " < character < "\x7f" for character in key):
        raise UsageError(
            "the API key has spaces or other characters that no key has: copy it again from RunPod's console"
        )
    return key


def _from_runpodctl(path: Path) -> str:
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} cannot be read ({error}): run `runpodctl config` again, or set RUNPOD_API_KEY"
        ) from error
    # runpodctl writes apikey, older versions apiKey.
    return next((str(value).strip() for name, value in found.items() if name.lower() == "apikey"), "")
