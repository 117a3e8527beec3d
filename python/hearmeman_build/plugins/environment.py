"""Builds a Python environment's layer: pinned wheels, unpacked, compiled, with their commands."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hearmeman_build.errors import BuildError
from hearmeman_build.plugins import wheel
from hearmeman_build.plugins.bytecode import cache_path, compile_module
from hearmeman_build.plugins.layer import Entry, dir_entry, file_entry, link_entry, write_layer
from hearmeman_build.plugins.plugin import Build, run

SITE = "lib/python3.11/site-packages"
PYTHON_VERSION = "3.11.2"
_SHARED_FOLDERS = frozenset({"tests", "test", "docs", "doc", "examples", "benchmarks", "scripts", "bin", "share"})
"""Top-level folders that careless wheels ship; nobody imports them."""


@dataclass(frozen=True)
class Environment:
    """Where an environment lies in the image, without a leading slash, e.g. `opt/env/runtime`."""

    root: str
    base: str = ""
    """The environment whose packages this one sees too, e.g. `opt/env/base`."""
    is_base: bool = False
    """Whether it is such a base: packages alone, no interpreter and no commands."""

    @property
    def python(self) -> str:
        """Its interpreter."""
        return f"/{self.root}/bin/python"

    def skeleton(self) -> dict[str, Entry]:
        """What `python -m venv --without-pip` would make, and the line that leads to the base."""
        if self.is_base:
            return {}
        config = f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {PYTHON_VERSION}\n"
        entries = [
            file_entry(f"{self.root}/pyvenv.cfg", config.encode()),
            link_entry(f"{self.root}/bin/python", "/usr/bin/python3.11"),
            link_entry(f"{self.root}/bin/python3", "python"),
            link_entry(f"{self.root}/bin/python3.11", "python"),
            link_entry(f"{self.root}/lib64", "lib"),
            dir_entry(f"{self.root}/{SITE}"),
        ]
        if self.base:
            # addsitedir and not a bare path: the base's own .pth files are run too.
            line = f"import site; site.addsitedir('/{self.base}/{SITE}')\n"
            entries.append(file_entry(f"{self.root}/{SITE}/_base.pth", line.encode()))
        return {entry.path: entry for entry in entries}

    def command(self, name: str, target: str) -> Entry:
        """A console command's script."""
        module, _, attribute = target.partition(":")
        text = (
            f"#!{self.python}\nimport sys\nfrom {module} import {attribute.partition('.')[0]}\n"
            f"if __name__ == '__main__':\n    sys.exit({attribute}())\n"
        )
        return file_entry(f"{self.root}/bin/{name}", text.encode(), 0o755)


def wheel_file(path: Path) -> Path:
    """The wheel at `path`, or the one wheel in that folder, where it was built from source."""
    return next(iter(sorted(path.glob("*.whl"))), path)


def _checked_members(path: Path) -> list[wheel.Member]:
    # Store paths are HASH-NAME.
    name = path.name.partition("-")[2] if path.parent.name == "store" else path.name
    wheel.check_platform(wheel.parse(name))
    return wheel.members(path, SITE)


def conflicts(wheels: Sequence[list[wheel.Member]], base: Sequence[list[wheel.Member]]) -> None:
    """Refuse what would be overwritten or hidden.

    Raises:
        BuildError: two wheels ship one file with different content, or a package's parts lie in both the base and
            the environment, where the one hides the other.
    """
    origin: dict[str, wheel.Member] = {}
    for member in (member for members in (*base, *wheels) for member in members):
        other = origin.setdefault(member.target, member)
        if other.digest != member.digest:
            raise BuildError(
                f"/{member.target} is in both {other.archive.name} and {member.archive.name}, with different content"
            )
    above, below = _packages(wheels), _packages(base)
    for name in sorted(above.keys() & below.keys()):
        if (above[name] or below[name]) and name not in _SHARED_FOLDERS:
            raise BuildError(
                f"package {name} has parts in both the base and the environment, and one hides the other: "
                "keep all of it in the base"
            )


def _packages(wheels: Sequence[list[wheel.Member]]) -> dict[str, bool]:
    """Top-level folder -> whether it is a regular package, with an __init__.py."""
    found: dict[str, bool] = {}
    for member in (member for members in wheels for member in members):
        inside = member.target.removeprefix(f"{SITE}/")
        name, slash, rest = inside.partition("/")
        if slash and inside != member.target and name.isidentifier():
            found[name] = found.get(name, False) or rest == "__init__.py"
    return found


def plan(environment: Environment, wheels: Sequence[Path], base: Sequence[Path] = ()) -> dict[str, Entry]:
    """Every file of the environment; of the `base` wheels only their commands, which need this interpreter.

    Raises:
        BuildError: a wheel for another platform, or wheels that do not go together.
    """
    contents = {path: _checked_members(path) for path in map(wheel_file, wheels)}
    below = {path: _checked_members(path) for path in map(wheel_file, base)}
    conflicts(list(contents.values()), list(below.values()))
    tree = environment.skeleton()
    for path, members in contents.items():
        installed = []
        for member in members:
            if environment.is_base and member.script:
                continue
            target = f"{environment.root}/{member.target}"
            tree |= _installed(environment, target, member)
            installed.append((target, member.digest, member.size))
        for script in [] if environment.is_base else _commands(environment, path):
            tree[script.path] = script
            installed.append((script.path, "", script.size))
        _finish_record(tree, environment, path, installed)
    for path, members in below.items():
        for member in members:
            if member.script:
                tree |= _installed(environment, f"{environment.root}/{member.target}", member)
        tree |= {script.path: script for script in _commands(environment, path)}
    return tree


def _commands(environment: Environment, path: Path) -> list[Entry]:
    return [environment.command(name, call) for name, call in wheel.commands(path).items()]


def _installed(environment: Environment, target: str, member: wheel.Member) -> dict[str, Entry]:
    """One member at its place, and its bytecode, which is made when its turn comes."""
    mode = 0o755 if member.executable else 0o644
    if member.script:
        data = member.open().read()
        if data.startswith(b"#!python"):
            data = b"#!" + environment.python.encode() + data[data.index(b"\n") :]
        return {target: file_entry(target, data, mode)}
    tree = {target: Entry(target, "file", mode, size=member.size, open=member.open)}
    if target.endswith(".py"):
        code = cache_path(target)
        tree[code] = Entry(code, "file", make=lambda: compile_module(member.open().read(), f"/{target}"))
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
    """Make the layer of environment `root` from `wheels`; `base` names what lies below, `base_wheels` is in it."""
    environment = Environment(job.attrs["root"], job.attrs["base"], job.attrs["is_base"])
    tree = plan(environment, [Path(p) for p in job.attrs["wheels"]], [Path(p) for p in job.attrs["base_wheels"]])
    write_layer(tree, job.out, job.attrs["created_by"], job.zstd, job.attrs["level"])


if __name__ == "__main__":
    run(build)
