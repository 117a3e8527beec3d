"""Fresh Debian machines, made by debootstrap: README's two commands pass on them with nothing but make installed first."""

from __future__ import annotations

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


class Machine:
    """A root file system of its own, on this machine's network."""

    def __init__(self, suite: str, root: Path) -> None:
        self.root = root
        archive, security = mirrors()["debian"], mirrors()["debian-security"]
        # What a person's pip and apt are given here holds there too: an index, a certificate.
        given = ("PIP_INDEX", "PIP_EXTRA", "PIP_TRUSTED", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
        self.environment = {name: value for name, value in os.environ.items() if name.startswith(given)}
        self.environment |= {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
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
            shutil.copyfile(authorities, root / "root/authorities.crt")
            self.environment |= {"PIP_CERT": "/root/authorities.crt", "SSL_CERT_FILE": "/root/authorities.crt"}
        for name in flake.files(ROOT):
            (root / "srv/hearmeman" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / "srv/hearmeman" / name, follow_symlinks=False)

    def run(self, command: str) -> None:
        """Run a command in the checkout there; its output goes where the test's goes.

        Raises:
            AssertionError: it failed.
        """
        inside = ["bwrap", "--bind", str(self.root), "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/run"]
        inside += ["--ro-bind", "/sys", "/sys", "--chdir", "/srv/hearmeman", "--die-with-parent", "sh", "-ec", command]
        done = subprocess.run(inside, env=self.environment, stdin=subprocess.DEVNULL, stdout=sys.stderr)
        assert done.returncode == 0, f"{command!r} ended with {done.returncode}; its output is above"


@pytest.fixture(params=["bookworm", "trixie"])
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A fresh machine of each release that we name, with security updates."""
    folder = Path(tempfile.mkdtemp(prefix="machine-", dir="/var/tmp"))
    try:
        yield Machine(request.param, folder / "root")
    finally:
        subprocess.run(["chmod", "-R", "u+w", str(folder)], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def test_readmes_commands_pass(machine: Machine) -> None:
    assert COMMANDS == ["make demo", "make test"]
    machine.run("! command -v make && ! command -v git && ! command -v python3")
    machine.run("apt-get update -qq && apt-get install -qq -y --no-install-recommends make")
    for command in COMMANDS:
        machine.run(command)
