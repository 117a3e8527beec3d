"""A plain user on a machine whose /nix is empty: an account of its own, an empty home, and no store but its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hearmeman_build import flake
from hearmeman_build.build import tier_parts
from hearmeman_build.downloads import store_name
from hearmeman_build.host import WORK, store_file, store_option
from hearmeman_build.store import flat_path
from support.repository import ROOT

ODD = "a checkout #1, Käufer"
"""A folder's name with what trips Nix, make and shells: a blank, `#` and a letter beyond ASCII."""

UID = 54321
"""The account's number; no system of ours gives it to anybody."""


@dataclass(frozen=True)
class PlainUser:
    """Somebody without root."""

    home: Path
    """Empty at first; the store that Nix makes lies in it."""
    checkout: Path
    """The repository's files without .git, with what was downloaded before."""
    uid: int

    def command(self, *arguments: str) -> list[str]:
        """The command line that runs `arguments` as this user, where /nix is empty."""
        inside = ["bwrap", "--dev-bind", "/", "/", "--die-with-parent"]
        # Debian 13's package makes none, and only the machine's own root could.
        inside += ["--tmpfs", "/nix"] if Path("/nix").exists() else []
        for table in ("passwd", "group"):
            inside += ["--ro-bind", str(self.home.parent / table), f"/etc/{table}"]
        inside += ["--chdir", str(self.checkout), "--"]
        if os.geteuid() == 0:
            inside += ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups", "--"]
        return [*inside, *arguments]

    def run(self, *arguments: str, variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run the repository's Python with `arguments` as this user."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home), "LANG": "C.UTF-8"}
        environment |= {"PYTHONPATH": "python:tests", "PYTHONDONTWRITEBYTECODE": "1", **(variables or {})}
        command = self.command(".venv/bin/python", *arguments)
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def give(self, *paths: Path) -> None:
        """Put copies of this machine's store paths into the user's own store, so that they need not be built again."""
        exported = self.checkout / ".work/exported"
        # Their names in the store, wherever on the disk this machine's lies.
        names = [f"/nix/store/{path.name}" for path in paths]
        with exported.open("wb") as file:
            subprocess.run(["nix-store", *store_option(), "--export", *names], stdout=file, check=True)
        done = self.run(
            "-c",
            "import subprocess; from hearmeman_build.host import store_option\n"
            "subprocess.run(['nix-store', *store_option(), '--import'], stdin=open('.work/exported'), check=True)",
        )
        assert done.returncode == 0, done.stderr
        exported.unlink()


@contextlib.contextmanager
def plain_user() -> Iterator[PlainUser]:
    """Make the user, its home and its checkout; all of it is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="plain-"))
    folder.chmod(0o755)
    home, checkout = folder / "home", folder / ODD
    uid = UID if os.geteuid() == 0 else os.geteuid()
    try:
        home.mkdir()
        # An account is a line in a file, which is laid over the machine's own: who runs the tests need not be able to add users.
        (folder / "passwd").write_text(Path("/etc/passwd").read_text() + f"plain:x:{UID}:{UID}::{home}:/bin/sh\n")
        (folder / "group").write_text(Path("/etc/group").read_text() + f"plain:x:{UID}:\n")
        for file in flake.files(ROOT):
            (checkout / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, checkout / file, follow_symlinks=False)
        (checkout / ".venv").symlink_to((ROOT / ".venv").resolve())
        seed(checkout / ".work/prefetch", "smoke")
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", f"{UID}:{UID}", str(folder)], check=True)
        yield PlainUser(home, checkout, uid)
    finally:
        subprocess.run(["chmod", "-R", "u+w", str(folder)], check=True)
        shutil.rmtree(folder)


def seed(downloads: Path, tier: str) -> None:
    """Copy what this machine has of `tier`'s parts into another checkout's downloads, where prefetch checks each hash."""
    downloads.mkdir(parents=True)
    parts = tier_parts(tier)
    userland = json.loads((ROOT / "nix/userland/lock.json").read_text())
    environments = json.loads((ROOT / "nix/environments/lock.json").read_text())
    packages = {name for group in (*parts["userland"], "buildroot") for name in userland["groups"][group]}
    wanted = {store_name(userland["packages"][name]["file"]): userland["packages"][name]["sha256"] for name in packages}
    wanted |= {
        entry["file"]: entry["sha256"] for name in (*parts["environments"], "tools") for entry in environments[name]
    }
    for name, sha256 in wanted.items():
        places: Sequence[Path] = (WORK / "prefetch" / name, store_file(flat_path(name, sha256)))
        shutil.copyfile(next(place for place in places if place.is_file()), downloads / name)
