"""Reads wheels: which file goes where, with which mode, and which commands they declare."""

from __future__ import annotations

import configparser
import csv
import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from hearmeman_build.errors import BuildError
from hearmeman_build.plugins.inflate import Inflated, Packed

_TAGS = re.compile(
    r"^(?P<name>[^-]+)-(?P<version>[^-]+)(-\d[^-]*)?-(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<platform>[^-]+)\.whl$"
)


@dataclass(frozen=True)
class Wheel:
    """One wheel's name and tags."""

    file: str
    name: str
    version: str
    pythons: tuple[str, ...]
    abis: tuple[str, ...]
    platforms: tuple[str, ...]


def parse(file: str) -> Wheel:
    """Read a wheel's file name.

    Raises:
        BuildError: it is not a wheel's name.
    """
    match = _TAGS.match(file)
    if match is None:
        raise BuildError(f"{file} is not a wheel's file name")
    part = match.groupdict()
    return Wheel(
        file,
        part["name"],
        part["version"],
        *(tuple(part[key].split(".")) for key in ("python", "abi", "platform")),
    )


def check_platform(wheel: Wheel) -> None:
    """Refuse a wheel that Debian 12's python3.11 on x86_64 cannot use.

    Raises:
        BuildError: names the wheel and its tags.
    """
    python = any(
        p in ("py3", "py2.py3", "cp311") or (p.startswith("cp3") and "abi3" in wheel.abis) for p in wheel.pythons
    )
    abi = any(a in ("none", "abi3", "cp311") for a in wheel.abis)
    platform = any(p == "any" or (p.endswith("_x86_64") and "linux" in p and "musl" not in p) for p in wheel.platforms)
    if not (python and abi and platform):
        raise BuildError(
            f"{wheel.file} is for another platform ({'.'.join(wheel.platforms)}): "
            "the image is CPython 3.11 on linux x86_64; run `make lock` to choose another file"
        )


@dataclass(frozen=True)
class Member:
    """One file of a wheel and where it goes, relative to the environment's root."""

    archive: Path
    name: str
    target: str
    size: int
    executable: bool
    script: bool
    """Its first line may be `#!python`, to be replaced by the environment's interpreter."""
    digest: str
    """RECORD's sha256, urlsafe base64 without padding; "" where RECORD has none."""
    packed: Packed

    def open(self) -> Inflated:
        """Its content. The wheel's own hash is pinned, so RECORD's of each member are not computed again."""
        return Inflated(self.archive, self.name, self.packed)


def members(path: Path, site: str) -> list[Member]:
    """All files of the wheel at `path`; `site` is site-packages relative to the environment's root.

    Raises:
        BuildError: not a zip, no RECORD, or a path that leaves the environment.
    """
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise BuildError(
            f"{path.name} is not a wheel (bad zip): run `make prefetch`, which fetches damaged files again"
        ) from error
    with archive:
        info = dist_info(archive, path)
        digests = _record(archive, info)
        data = info.removesuffix(".dist-info") + ".data/"
        found = []
        for item in archive.infolist():
            if item.is_dir() or "__pycache__/" in item.filename:
                continue
            if item.filename.startswith(f"{info}/RECORD"):
                continue
            target, script = _target(item.filename, data, site, info)
            if ".." in target.split("/") or target.startswith("/"):
                raise BuildError(f"{path.name}: {item.filename} leaves the environment")
            executable = script or bool(item.external_attr >> 16 & 0o111)
            digest = digests.get(item.filename, "")
            size, packed = item.file_size, Packed.of(item)
            found.append(Member(path, item.filename, target, size, executable, script, digest, packed))
        return found


def _target(name: str, data: str, site: str, info: str) -> tuple[str, bool]:
    if not name.startswith(data):
        return f"{site}/{name}", False
    scheme, _, rest = name.removeprefix(data).partition("/")
    roots = {
        "purelib": site,
        "platlib": site,
        "scripts": "bin",
        "data": "",
        "headers": f"include/site/python3.11/{info.partition('-')[0]}",
    }
    if scheme not in roots:
        raise BuildError(f"{info}: unknown scheme {scheme!r} in the wheel")
    return f"{roots[scheme]}/{rest}".lstrip("/"), scheme == "scripts"


def dist_info(archive: zipfile.ZipFile, path: Path) -> str:
    """The wheel's .dist-info folder."""
    for name in archive.namelist():
        if name.endswith(".dist-info/RECORD") and name.count("/") == 1:
            return name.partition("/")[0]
    raise BuildError(f"{path.name} has no RECORD: it is not a wheel")


def _record(archive: zipfile.ZipFile, info: str) -> dict[str, str]:
    rows = csv.reader(io.StringIO(archive.read(f"{info}/RECORD").decode()))
    return {row[0]: row[1].removeprefix("sha256=") for row in rows if len(row) > 1 and row[1].startswith("sha256=")}


def commands(path: Path) -> dict[str, str]:
    """Console commands that the wheel declares: name -> `module:attribute`."""
    with zipfile.ZipFile(path) as archive:
        name = f"{dist_info(archive, path)}/entry_points.txt"
        if name not in archive.namelist():
            return {}
        parser = configparser.ConfigParser(delimiters=("=",), interpolation=None)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read_string(archive.read(name).decode())
    found: dict[str, str] = {}
    for section in ("console_scripts", "gui_scripts"):
        if parser.has_section(section):
            found |= {key: value.partition("[")[0].strip() for key, value in parser.items(section)}
    return found
