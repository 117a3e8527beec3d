"""The overlay's files: a venv that sees the image's packages, and what pip may not change in it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

HELD = ("huggingface-hub", "numpy", "torch", "torchaudio", "torchvision", "transformers", "triton")
"""Packages whose versions pip must leave as the image has them: nodes and models are checked against these."""

CV2 = "opencv-contrib-python-headless"
CV2_NAMES = ("opencv-contrib-python", "opencv-python", "opencv-python-headless")
"""Other distributions of the same cv2 folder. pip is told that they are there, since they would overwrite each other."""

_BASE = re.compile(r"addsitedir\('([^']+)'\)")
_INFO = re.compile(r"^(?P<name>.+)-(?P<version>[^-]+)\.dist-info$")
_OURS = "hearmeman"
_PIP = """#!/bin/sh
# The overlay may be renamed with its volume, so it is found by where this lies.
exec "$(dirname "$0")/python" -m pip "$@"
"""


@dataclass(frozen=True)
class Overlay:
    """One overlay: for one set of the image's packages and one Python."""

    root: Path
    """Its folder on the volume."""
    image_python: Path
    """The interpreter of the image's environment that it lies over."""

    @property
    def python(self) -> Path:
        """Its interpreter: pip run by it installs here."""
        return self.root / "bin/python"

    @property
    def site(self) -> Path:
        """Its site-packages."""
        return self.root / _SITE

    @property
    def constraints(self) -> Path:
        """The file that PIP_CONSTRAINT names."""
        return self.root / "constraints.txt"

    @property
    def checked(self) -> Path:
        """What was found when ComfyUI was last tried with it."""
        return self.root / "checked.json"


_SITE = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"


def folder_name(key: str) -> str:
    """An overlay's folder: the key of the image's packages, and the Python that extension modules are built for."""
    return f"{key}-cp{sys.version_info.major}{sys.version_info.minor}"


def image_sites(image_python: Path) -> list[Path]:
    """site-packages of the image's environment, and of the base below it."""
    own = image_python.parents[1] / _SITE
    found = [own]
    base = own / "_base.pth"
    if base.is_file():
        found += [Path(path) for path in _BASE.findall(base.read_text(encoding="utf-8"))]
    return found


def installed(sites: Iterable[Path]) -> dict[str, str]:
    """Distribution -> version, from the names of .dist-info folders; the first site wins, our stand-ins are left out."""
    found: dict[str, str] = {}
    for site in sites:
        for path in sorted(site.glob("*.dist-info")):
            match = _INFO.match(path.name)
            if match and not _is_stand_in(path):
                found.setdefault(re.sub(r"[-_.]+", "-", match["name"]).lower(), match["version"])
    return found


def _is_stand_in(info: Path) -> bool:
    installer = info / "INSTALLER"
    return installer.is_file() and installer.read_text(encoding="utf-8").strip() == f"{_OURS}-stand-in"


def make(overlay: Overlay) -> None:
    """Make the overlay if it is not there: beside, then renamed.

    Raises:
        OSError: the volume cannot be written.
    """
    if not overlay.python.is_symlink():
        overlay.root.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=".making-", dir=overlay.root.parent))
        try:
            _fill(Overlay(beside, overlay.image_python))
            beside.chmod(0o775)
            beside.rename(overlay.root)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    held = installed(image_sites(overlay.image_python))
    _write(overlay.constraints, "".join(f"{name}=={held[name]}\n" for name in HELD if name in held))


def _write(path: Path, text: str) -> None:
    # Beside and renamed: the one that is there may be another user's.
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def _fill(overlay: Overlay) -> None:
    (overlay.root / "bin").mkdir()
    overlay.site.mkdir(parents=True)
    (overlay.root / "lib64").symlink_to("lib")
    real = overlay.image_python.resolve()
    overlay.python.symlink_to(real)
    for name in ("python3", f"python3.{sys.version_info.minor}"):
        (overlay.root / "bin" / name).symlink_to("python")
    # Nodes call pip by name too; the environment's own would install into the image.
    for name in ("pip", "pip3"):
        script = overlay.root / "bin" / name
        script.write_text(_PIP, encoding="utf-8")
        script.chmod(0o755)
    config = f"home = {real.parent}\ninclude-system-site-packages = false\n"
    (overlay.root / "pyvenv.cfg").write_text(config, encoding="utf-8")
    sites = image_sites(overlay.image_python)
    # addsitedir runs the environment's own .pth files, so the base comes along.
    (overlay.site / "_image.pth").write_text(f"import site; site.addsitedir('{sites[0]}')\n", encoding="utf-8")
    version = installed(sites).get(CV2)
    for name in CV2_NAMES if version else ():
        info = overlay.site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
        (info / "INSTALLER").write_text(f"{_OURS}-stand-in\n", encoding="utf-8")
        (info / "RECORD").write_text("", encoding="utf-8")


def fingerprint(packages: Mapping[str, str]) -> str:
    """A short name for what an overlay holds."""
    return hashlib.sha256(json.dumps(packages, sort_keys=True).encode()).hexdigest()[:16]


def left_behind(overlay: Overlay) -> dict[str, str]:
    """What overlays for other images hold and this one and its image lack: package -> version."""
    here = installed([overlay.site, *image_sites(overlay.image_python)])
    others = sorted(overlay.root.parent.glob("*-cp*"), key=lambda path: path.stat().st_mtime)
    found: dict[str, str] = {}
    for other in others:
        if other != overlay.root:
            found |= installed(other.glob("lib/python*/site-packages"))
    return {name: version for name, version in sorted(found.items()) if name not in here}
