"""Which libraries the image's programs ask for (ELF NEEDED) and nothing in the image offers."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

SYSTEM = ("usr/lib/x86_64-linux-gnu", "usr/lib", "usr/local/lib")
DRIVER = frozenset(
    {
        # The container toolkit mounts these from the host.
        "libcuda.so.1",
        "libnvidia-ml.so.1",
        "libnvcuvid.so.1",
        "libnvidia-encode.so.1",
        # GPUDirect over a network card: its drivers are the host's.
        "libibverbs.so.1",
        "libmlx5.so.1",
        "librdmacm.so.1",
        # onnxruntime's optional TensorRT provider.
        "libnvinfer.so.10",
        "libnvonnxparser.so.10",
    }
)
"""Libraries that no image holds."""

OTHER_HARDWARE = (
    # One file for each accelerator and CUDA version; bitsandbytes loads the one that fits torch.
    re.compile(r"bitsandbytes/libbitsandbytes_(cuda(11|13)\d+|rocm\d+|xpu\d+)\.so$"),
    re.compile(r"comfy_kitchen/backends/hip/"),
    # One file for each ffmpeg; the image's is 5.
    re.compile(r"torio/lib/_?(lib)?_?torio_ffmpeg[46]\.so$"),
    # An unversioned name that Debian has in the development package only; torchaudio goes on without it.
    re.compile(r"torchaudio/lib/(lib|_)torchaudio_sox\.so$"),
    # numba's optional pool beside OpenMP's and its own.
    re.compile(r"numba/np/ufunc/tbbpool\."),
)
"""Files that their packages load only where what they need is there."""


def needed(path: Path) -> tuple[list[str], list[str]]:
    """A library's NEEDED names and its search folders (RPATH, RUNPATH), $ORIGIN replaced; empty for no ELF file."""
    names, folders = [], []
    try:
        with path.open("rb") as file:
            if file.read(4) != b"\x7fELF":
                return [], []
            file.seek(0)
            for section in ELFFile(file).iter_sections():
                if isinstance(section, DynamicSection):
                    for tag in map(_any, section.iter_tags()):
                        if tag.entry.d_tag == "DT_NEEDED":
                            names.append(tag.needed)
                        elif tag.entry.d_tag in ("DT_RPATH", "DT_RUNPATH"):
                            text = tag.rpath if tag.entry.d_tag == "DT_RPATH" else tag.runpath
                            folders += [p.replace("$ORIGIN", str(path.parent)) for p in text.split(":") if p]
    except ELFError:
        return [], []
    return names, folders


def _any(tag: Any) -> Any:
    # pyelftools sets a tag's own attribute by its name.
    return tag


def unresolved(root: Path) -> list[str]:
    """Every library that some file under `root`/opt/env asks for and nothing in the image offers, with who asks.

    A name counts as offered by the asker's search folders, by the system's, or by another package of the same
    environment or the base: packages load their neighbours' libraries before their own.
    """
    environments = {path.name: libraries(path) for path in sorted((root / "opt/env").iterdir())}
    system = {entry.name for folder in SYSTEM if (root / folder).is_dir() for entry in (root / folder).iterdir()}
    found: dict[str, str] = {}
    for name, files in environments.items():
        near = {file.name for file in files} | {file.name for file in environments.get("base", [])}
        for file in files:
            if any(pattern.search(str(file)) for pattern in OTHER_HARDWARE):
                continue
            names, folders = needed(file)
            for wanted in names:
                if wanted in system or wanted in near or wanted in DRIVER:
                    continue
                if not any((Path(folder) / wanted).exists() for folder in folders):
                    found.setdefault(wanted, f"{wanted}: {name}: {file.relative_to(root)}")
    return sorted(found.values())


def libraries(folder: Path) -> list[Path]:
    """The files below `folder` that may be ELF objects."""
    return [
        Path(parent, name)
        for parent, _, names in os.walk(folder)
        for name in names
        if ".so" in name and not name.endswith((".py", ".pyc", ".pyi"))
    ]
