"""One commit of a git repository in its own folder: complete and exactly that commit, or not there."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hearmeman.errors import HearmemanError


class CheckoutError(HearmemanError):
    """The commit cannot be fetched."""


@dataclass(frozen=True)
class Code:
    """A pinned program."""

    source: str
    """Address, as git clones it."""
    commit: str
    """All 40 digits."""


def is_there(home: Path, code: Code) -> bool:
    """Tell whether the commit is below `home`."""
    return _place(home, code).is_dir()


def obtain(home: Path, code: Code, environ: Mapping[str, str]) -> Path:
    """The folder with the commit, fetched first if needed; submodules and hooks are left out.

    Raises:
        CheckoutError: it cannot be fetched or written.
    """
    place = _place(home, code)
    if place.is_dir():
        return place
    try:
        home.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".clone-", dir=home))
    except OSError as error:
        raise CheckoutError(f"{home} cannot be written: {error.strerror}") from error
    try:
        _git(part, environ, "init", "--quiet", "--template=")
        _git(part, environ, "fetch", "--quiet", "--depth=1", "--no-tags", "--", code.source, code.commit)
        _git(part, environ, "checkout", "--quiet", "--detach", "FETCH_HEAD")
        found = _git(part, environ, "rev-parse", "HEAD").strip()
        if found != code.commit:
            raise CheckoutError(f"{code.source} gave commit {found} instead of {code.commit}: nothing was kept")
        shutil.rmtree(part / ".git")
        part.chmod(0o755)
        # Two processes that fetch it at once get the same: the first one stays.
        try:
            part.rename(place)
        except OSError:
            if not place.is_dir():
                raise
    except OSError as error:
        raise CheckoutError(f"{home} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return place


def _place(home: Path, code: Code) -> Path:
    return home / code.commit[:12]


def _git(folder: Path, environ: Mapping[str, str], *words: str) -> str:
    quiet = {"GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1", "LC_ALL": "C", "GIT_CONFIG_NOSYSTEM": "1"}
    kept = {name: value for name, value in environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            env={"PATH": os.defpath, **kept, **quiet},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise CheckoutError(f"git cannot be started: {error.strerror}") from error
    if done.returncode != 0:
        said = " ".join(done.stderr.split()) or f"git {words[0]} failed with {done.returncode}"
        raise CheckoutError(f"the code cannot be fetched: {said}. Check the network and --source, and try again")
    return done.stdout
