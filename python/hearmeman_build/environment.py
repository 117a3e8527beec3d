"""Builds a Python environment's layer: pinned wheels, unpacked, compiled, with their commands."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hearmeman_build import wheel
from hearmeman_build.builder import Build, run
from hearmeman_build.bytecode import cache_path, compile_module
from hearmeman_build.errors import BuildError
from hearmeman_build.layer import Entry, file_entry, link_entry, write_layer

SITE = "lib/python3.11/site-packages"
PYTHON_VERSION = "3.11.2"


@dataclass(frozen=True)
class Environment:
    """Where an environment lies in the image, without a leading slash, e.g. `opt/env/runtime`."""

    root: str

    @property
    def python(self) -> str:
        """Its interpreter."""
        return f"/{self.root}/bin/python"

    def skeleton(self) -> dict[str, Entry]:
        """What `python -m venv --without-pip` would make."""
        config = f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {PYTHON_VERSION}\n"
        entries = [
            file_entry(f"{self.root}/pyvenv.cfg", config.encode()),
            link_entry(f"{self.root}/bin/python", "/usr/bin/python3.11"),
            link_entry(f"{self.root}/bin/python3", "python"),
            link_entry(f"{self.root}/bin/python3.11", "python"),
            link_entry(f"{self.root}/lib64", "lib"),
        ]
        return {entry.path: entry for entry in entries}

    def command(self, name: str, target: str) -> Entry:
        """A console command's script."""
        module, _, attribute = target.partition(":")
        text = (
            f"#!{self.python}\nimport sys\nfrom {module} import {attribute.partition('.')[0]}\n"
            f"if __name__ == '__main__':\n    sys.exit({attribute}())\n"
        )
        return file_entry(f"{self.root}/bin/{name}", text.encode(), 0o755)


def _read(member: wheel.Member) -> bytes:
    with zipfile.ZipFile(member.archive) as archive:
        data = archive.read(member.name)
    actual = wheel.record_digest(hashlib.sha256(data).digest())
    if member.digest and actual != member.digest:
        raise BuildError(f"{member.archive.name}: {member.name} differs from the wheel's own RECORD: the wheel is bad")
    return data


def _opener(member: wheel.Member) -> Callable[[], IO[bytes]]:
    return lambda: io.BytesIO(_read(member))


def plan(environment: Environment, wheels: list[Path]) -> dict[str, Entry]:
    """Every file of the environment.

    Raises:
        BuildError: a wheel for another platform, or two wheels that ship one file with different content.
    """
    tree = environment.skeleton()
    origin: dict[str, wheel.Member] = {}
    for path in wheels:
        # Store paths are HASH-NAME.
        wheel.check_platform(wheel.parse(path.name.partition("-")[2] if path.name[32:33] == "-" else path.name))
        installed = []
        for member in wheel.members(path, SITE):
            target = f"{environment.root}/{member.target}"
            other = origin.get(target)
            if other is not None:
                if other.digest != member.digest:
                    raise BuildError(
                        f"/{target} is in both {other.archive.name} and {path.name}, with different content"
                    )
                continue
            origin[target] = member
            mode = 0o755 if member.executable else 0o644
            if member.script or target.endswith(".py"):
                data = _read(member)
                if member.script and data.startswith(b"#!python"):
                    data = b"#!" + environment.python.encode() + data[data.index(b"\n") :]
                tree[target] = file_entry(target, data, mode)
                code = compile_module(data, f"/{target}") if target.endswith(".py") else None
                if code is not None:
                    tree[cache_path(target)] = file_entry(cache_path(target), code)
            else:
                tree[target] = Entry(target, "file", mode, size=member.size, open=_opener(member))
            installed.append((target, member.digest, member.size))
        for name, call in wheel.commands(path).items():
            script = environment.command(name, call)
            tree[script.path] = script
            installed.append((script.path, "", script.size))
        _finish_record(tree, environment, path, installed)
    return tree


def _finish_record(
    tree: dict[str, Entry], environment: Environment, path: Path, installed: list[tuple[str, str, int]]
) -> None:
    with zipfile.ZipFile(path) as archive:
        info = wheel.dist_info(archive, path)
    site = f"{environment.root}/{SITE}"
    installer = file_entry(f"{site}/{info}/INSTALLER", b"hearmeman\n")
    tree[installer.path] = installer
    rows = []
    for target, digest, size in [*installed, (installer.path, "", installer.size)]:
        name = target.removeprefix(f"{site}/") if target.startswith(f"{site}/") else _relative(target, environment.root)
        quoted = f'"{name}"' if "," in name else name
        rows.append(f"{quoted},sha256={digest},{size}" if digest else f"{quoted},,")
    rows.append(f"{info}/RECORD,,")
    record = file_entry(f"{site}/{info}/RECORD", ("\n".join(sorted(rows)) + "\n").encode())
    tree[record.path] = record


def _relative(target: str, root: str) -> str:
    return "../../../" + target.removeprefix(f"{root}/")


def build(job: Build) -> None:
    """Make the layer of environment `root` from `wheels`."""
    tree = plan(Environment(job.attrs["root"]), [Path(path) for path in job.attrs["wheels"]])
    write_layer(tree, job.out, job.attrs["created_by"], job.zstd, job.attrs["level"])


if __name__ == "__main__":
    run(build)
