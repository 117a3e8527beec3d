"""Builds a wheel from a source package that publishes none: in this process, with a pinned setuptools."""

from __future__ import annotations

import importlib
import os
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from hearmeman_build.errors import BuildError
from hearmeman_build.plugins.plugin import Build, run

EPOCH = 315532800
"""1 January 1980: the earliest time that a zip can hold."""


def unpack(source: Path, folder: Path) -> Path:
    """Unpack a source package; the folder that it holds."""
    with tarfile.open(source) as archive:
        for name in archive.getnames():
            if name.startswith("/") or ".." in name.split("/"):
                raise BuildError(f"{source.name}: {name} leaves the folder that it is unpacked into")
        archive.extractall(folder)
    [inner] = [path for path in folder.iterdir() if path.is_dir()]
    return inner


def build_wheel(source: Path, backends: list[Path], out: Path) -> Path:
    """Build `source` into `out` with setuptools' legacy backend, whose wheels are `backends`.

    No frontend: one starts a second Python, and a Python started through ld.so cannot be started again.

    Raises:
        BuildError: the build failed, or the wheel is not for every platform.
    """
    with tempfile.TemporaryDirectory() as folder:
        for backend in backends:
            with zipfile.ZipFile(backend) as archive:
                archive.extractall(Path(folder, "backend"))
        sys.path.insert(0, str(Path(folder, "backend")))
        os.environ["SOURCE_DATE_EPOCH"] = str(EPOCH)
        os.chdir(unpack(source, Path(folder, "source")))
        try:
            legacy = importlib.import_module("setuptools.build_meta").__legacy__
            name: str = legacy.build_wheel(str(out))
        except (Exception, SystemExit) as error:
            raise BuildError(f"{source.name} does not build: {type(error).__name__}: {error}") from error
        finally:
            os.chdir("/")
    if not name.endswith("-none-any.whl"):
        raise BuildError(f"{source.name} builds {name}, which is for one platform: it needs a compiler, pin a wheel")
    return out / name


def build(job: Build) -> None:
    """Make the wheel of `source` with `backends`."""
    job.out.mkdir()
    build_wheel(Path(job.attrs["source"]), [Path(path) for path in job.attrs["backends"]], job.out)


if __name__ == "__main__":
    run(build)
