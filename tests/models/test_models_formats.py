"""Weights that no reader would take are refused: safetensors where the library itself refuses them, and all disguises."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fakes.hub import tiny_safetensors
from hearmeman.models.errors import CorruptError
from hearmeman.models.formats import check_format
from hearmeman.models.verify import check

TYPES = ["F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I64", "U8", "BOOL", "F4", "F6_E2M3", "C64", "F128"]


def framed(header: bytes, body: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + body


def tensor(kind: str, shape: list[Any], *offsets: Any) -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": list(offsets)}


def accepts(path: Path, content: bytes) -> bool:
    path.write_bytes(content)
    try:
        check_format(path)
    except CorruptError:
        return False
    return True


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A safetensors file that is right, or nearly."""
    header: dict[str, Any] = {}
    position = 0
    for name in draw(st.lists(st.sampled_from("abcd"), unique=True)):
        shape = draw(st.lists(st.integers(0, 4), max_size=3))
        kind = draw(st.sampled_from(TYPES))
        width = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8, "C64": 8}.get(kind, 1)
        count = width
        for number in shape:
            count *= number
        begin = position + draw(st.sampled_from([0, 0, 0, 0, 1, -1]))
        end = begin + count + draw(st.sampled_from([0, 0, 0, 0, 1]))
        position = max(position, end)
        odd = draw(st.sampled_from([None] * 9 + ["x", 1.5, True, -1, None]))
        header[name] = tensor(kind, shape if odd is None else [*shape, odd], begin, end)
    if draw(st.booleans()):
        header["__metadata__"] = draw(st.sampled_from([{"a": "b"}, {}, None, {"a": 1}, [], {"a": None}]))
    text = json.dumps(header).encode() + draw(st.sampled_from([b"", b"", b"   ", b"\n", b"x"]))
    return framed(text, bytes(max(0, position + draw(st.sampled_from([0, 0, 0, 1, -1])))))


@given(files())
@example(framed(b""))
@example(b"1234567")
@example(framed(b"{}"))
@example(framed(b"[]"))
@example(framed(b'{"__metadata__": []}'))
@example(framed(b'{"a":NaN}'))
@example(framed(b"\xff{}"))
@example((2**63).to_bytes(8, "little") + b"{}")
@example(framed(json.dumps({"a": tensor("F32", [1], 0, 4), "b": tensor("F32", [1], 8, 12)}).encode(), bytes(12)))
@settings(max_examples=500, deadline=None)
def test_safetensors_is_refused_exactly_where_the_library_refuses_it(tmp_path_factory: Any, content: bytes) -> None:
    try:
        safetensors.deserialize(content)  # type: ignore[no-untyped-call]
        library = True
    except safetensors.SafetensorError:
        library = False
    assert accepts(tmp_path_factory.getbasetemp() / "one.safetensors", content) is library


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * 100)
    return buffer.getvalue()


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def gguf(tensors: int = 1, data: int = 34 * 4, version: int = 3) -> bytes:
    """A GGUF with one entry and tensors of 128 numbers in Q8_0, of which there are `data` bytes."""
    entries = text("general.architecture") + struct.pack("<I", 8) + text("qwen_image")
    entries += text("tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b")
    entries += text("scores") + struct.pack("<IIQ", 9, 6, 3) + bytes(12)
    head = b"GGUF" + struct.pack("<IQQ", version, tensors, 3) + entries
    for number in range(tensors):
        head += text(f"t{number}") + struct.pack("<IQQIQ", 2, 64, 2, 8, 0)
    return head + bytes(-len(head) % 32) + bytes(data)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 14294742832\n"
PAGE = b"\n<!DOCTYPE html><html><title>Sign in</title>"
MESSAGE = b'{"error": "Unauthorized", "message": "log in"}'
PICKLE = pickle.dumps({"state": [1, 2]}, protocol=2)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.safetensors", tiny_safetensors()),
        ("a.pth", zipped("archive/data.pkl", "archive/data/0")),
        ("a.torchscript", zipped("nlf/code/x.py", "nlf/constants.pkl")),
        ("a.ckpt", PICKLE),
        ("a.gguf", gguf()),
        ("a.gguf", gguf(2)),
        ("a.bin", b"anything at all"),
        ("a.json", MESSAGE),
        ("a.html", PAGE),
    ],
)
def test_what_readers_take_is_taken(tmp_path: Path, name: str, content: bytes) -> None:
    assert accepts(tmp_path / name, content)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        *((name, POINTER, "is Git LFS's pointer") for name in ("a.safetensors", "a.pth", "a.json", "a.txt", "a.gguf")),
        *((name, PAGE, "is a web page") for name in ("a.pth", "a.bin", "a.onnx", "a.safetensors", "a.gguf", "a.CKPT")),
        *((name, MESSAGE, "is JSON") for name in ("a.pth", "a.bin", "a.onnx", "a.safetensors", "a.gguf")),
        ("a.pth", bytes(1024), "is not a PyTorch file"),
        ("a.pth", zipped("archive/data.pkl")[:-40], "cannot be read to its end"),
        ("a.pt", zipped("readme.txt"), "is a zip archive, but not PyTorch's"),
        ("a.ckpt", PICKLE[:-1], "is a pickle that does not end"),
        ("a.gguf", b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "it has no tensors"),
        ("a.gguf", b"GGUF" + struct.pack("<IQQ", 3, 1, 0), "it ends within its header"),
        ("a.gguf", b"GGUF" + struct.pack("<IQQ", 9, 1, 0), "its version is 9"),
        ("a.gguf", gguf(data=34 * 4 - 1), "its header promises"),
        ("a.gguf", gguf()[:100], "it ends within its header"),
        ("a.pth", b"", "is empty"),
    ],
)
def test_what_no_reader_takes_is_refused_by_name(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CorruptError, match=f"{name} .*{told}|{name} {told}"):
        check_format(path)


@pytest.mark.parametrize(
    ("size", "about", "right"), [(2000, 3000, True), (2000, None, True), (1000, 2100, False), (2000, 900, False)]
)
def test_a_rounded_size_is_a_floor_and_a_ceiling_where_nothing_better_is_known(
    tmp_path: Path, size: int, about: int | None, right: bool
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(size))
    if right:
        assert check(path, None, None, None, about)
    else:
        with pytest.raises(CorruptError, match="instead of about"):
            check(path, None, None, None, about)
