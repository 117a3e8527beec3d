"""Fresh Debian machines, made by debootstrap: README's two commands pass on them with nothing but make installed first."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hearmeman_build import flake
from hearmeman_build.downloads import mirrors
from support.repository import ROOT

COMMANDS = re.findall(r"^    (make (?:demo|test))\b", (ROOT / "README.md").read_text(), re.MULTILINE)


ENTER = """
mount --rbind "$0" "$0"
cd "$0"
mount -t proc proc proc
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
mount --rbind /sys sys
mount -t tmpfs tmpfs run
mkdir -p old
pivot_root . old
umount --lazy old
exec "$@"
"""
"""A shell's way into a root of its own: not chroot, in which nobody may make a user namespace, nor bubblewrap, in which sudo
may not become root."""


class Machine:
    """A root file system of its own, on this machine's network, with a checkout of the person who uses it."""

    def __init__(self, suite: str, person: str, root: Path) -> None:
        self.root = root
        self.person = person
        self.home = "/root" if person == "root" else f"/home/{person}"
        self.checkout = "/srv/hearmeman" if person == "root" else f"{self.home}/hearmeman"
        archive, security = mirrors()["debian"], mirrors()["debian-security"]
        # What a person gives here holds there too: pip an index and a certificate, tests the number of workers.
        given = (
            "PIP_INDEX",
            "PIP_EXTRA",
            "PIP_TRUSTED",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "http_proxy",
            "https_proxy",
            "WORKERS",
        )
        self.environment = {name: value for name, value in os.environ.items() if name.startswith(given)}
        self.environment |= {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
        subprocess.run(["debootstrap", "--variant=minbase", suite, str(root), archive], check=True, stdout=sys.stderr)
        lines = [f"deb {archive} {suite} main", f"deb {archive} {suite}-updates main"]
        lines.append(f"deb {security} {suite}-security main")
        (root / "etc/apt/sources.list").write_text("\n".join(lines) + "\n")
        for file in ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf"):
            if Path(file).is_file():
                shutil.copyfile(file, root / file[1:])
        authorities = Path("/etc/ssl/certs/ca-certificates.crt")
        if authorities.is_file():
            # Not in its own place: installing ca-certificates there writes that anew.
            shutil.copyfile(authorities, root / "usr/local/lib/authorities.crt")
            self.environment |= {
                "PIP_CERT": "/usr/local/lib/authorities.crt",
                "SSL_CERT_FILE": "/usr/local/lib/authorities.crt",
            }
        if person != "root":
            self.run("useradd --create-home --shell /bin/bash " + person, "root")
        for name in flake.files(ROOT):
            (root / self.checkout[1:] / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / self.checkout[1:] / name, follow_symlinks=False)
        self.run(f"chown -R {person}: {self.checkout}", "root")

    def run(self, command: str, who: str = "") -> None:
        """Run a command in the checkout there, as its owner or as `who`; its output goes where the test's goes.

        Raises:
            AssertionError: it failed.
        """
        who = who or self.person
        # Who changes users is forgotten by --kill-child.
        linked = ["setpriv", "--pdeathsig", "KILL"]
        inside = [*linked, "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", ENTER, str(self.root)]
        inside += [*linked, f"--reuid={who}", f"--regid={who}", "--init-groups", "sh", "-euc"]
        inside += [f"cd {self.checkout if who == self.person else '/'}\n{command}"]
        environment = self.environment | {"HOME": self.home if who == self.person else "/root", "USER": who}
        done = subprocess.run(inside, env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr)
        assert done.returncode == 0, f"{command!r} ended with {done.returncode}; its output is above"


@pytest.fixture(params=itertools.product(["bookworm", "trixie"], ["root", "somebody"]), ids="-".join)
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A fresh machine of each release that we name, with security updates, for root and for a plain user in a home."""
    suite, person = request.param
    folder = Path(tempfile.mkdtemp(prefix="machine-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        yield Machine(suite, person, folder / "root")
    finally:
        shutil.rmtree(folder)


def test_readmes_commands_pass(machine: Machine) -> None:
    assert COMMANDS == ["make demo", "make test"]
    machine.run("! command -v make && ! command -v git && ! command -v python3")
    machine.run("apt-get update -qq && apt-get install -qq -y --no-install-recommends make", "root")
    if machine.person != "root":
        # As Debian's installer leaves it for the first user.
        machine.run("apt-get install -qq -y --no-install-recommends sudo", "root")
        machine.run(f"echo '{machine.person} ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/somebody", "root")
    for command in COMMANDS:
        machine.run(command)
