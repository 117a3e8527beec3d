"""What a file's own format says of it: whether any reader would take it, without reading all of it."""

from __future__ import annotations

import errno
import zipfile
from pathlib import Path

from hearmeman.models.errors import CorruptError
from hearmeman.models.formats import gguf, safetensors

_POINTER = b"version https://git-lfs.github.com/spec/"
_PAGES = (b"<!doctype html", b"<html", b"<?xml", b"<head", b"<body")
_WEIGHTS = frozenset([".bin", ".ckpt", ".gguf", ".onnx", ".pkl", ".pt", ".pth", ".safetensors", ".sft", ".torchscript"])
_TORCH = frozenset([".ckpt", ".pt", ".pth", ".torchscript"])
_PICKLES = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))


def check_format(path: Path, name: str = "") -> None:
    """Check that a file is what its name says it is, its own or the one that it will get; others pass.

    Raises:
        CorruptError: no reader of that format would take it.
    """
    suffix = Path(name or path.name).suffix.lower()
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(_POINTER):
        raise CorruptError(f"{path.name} is Git LFS's pointer to the file, not the file")
    if suffix in _WEIGHTS:
        _check_disguise(path, head)
    if suffix in (".safetensors", ".sft"):
        safetensors.check(path)
    elif suffix == ".gguf":
        gguf.check(path)
    elif suffix in _TORCH:
        _check_torch(path, head)


def _check_disguise(path: Path, head: bytes) -> None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not head:
        raise CorruptError(f"{path.name} is empty")
    if text.startswith(_PAGES):
        raise CorruptError(f"{path.name} is a web page, not weights")
    if text.startswith((b'{"', b"[{", b"{}")) or (text.startswith(b"{") and text[1:].lstrip().startswith(b'"')):
        raise CorruptError(f"{path.name} is JSON, not weights")


def _check_torch(path: Path, head: bytes) -> None:
    """Take what torch.load takes: its zip with a pickle in it, a TorchScript archive, a plain pickle, an old tar."""
    if head.startswith(_PICKLES):
        # A pickle ends with a full stop; torch's old format puts the tensors behind it.
        if path.stat().st_size > len(head) or head.rstrip(b"\0").endswith(b"."):
            return
        raise CorruptError(f"{path.name} is a pickle that does not end")
    if head[257:262] == b"ustar":
        return
    if not head.startswith(b"PK\x03\x04"):
        raise CorruptError(f"{path.name} is not a PyTorch file: it is neither its archive nor a pickle")
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # The disk fails, and says nothing of the file. EINVAL is an offset that the file itself states wrongly.
        raise CorruptError(f"{path.name} is a PyTorch archive that cannot be read to its end") from error
    if not any(name.rpartition("/")[2] in ("data.pkl", "constants.pkl") for name in names):
        raise CorruptError(f"{path.name} is a zip archive, but not PyTorch's")
