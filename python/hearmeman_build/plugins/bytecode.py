"""Compiles a module to bytecode that does not depend on the process that compiles it."""

from __future__ import annotations

import importlib.util
import marshal

_UNCHECKED_HASH = (1).to_bytes(4, "little")


def compile_module(source: bytes, path: str) -> bytes | None:
    """Return the .pyc of `source`, which will lie at `path` in the image; None if it does not compile.

    Marshal version 2 has no shared references, so the bytes do not depend on reference counts, and so
    not on what else this process imported. The file is unchecked-hash: it is used without a stat.
    """
    try:
        code = compile(source, path, "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError, UnicodeDecodeError):
        return None
    head = importlib.util.MAGIC_NUMBER + _UNCHECKED_HASH + importlib.util.source_hash(source)
    return head + marshal.dumps(code, 2)


def cache_path(module: str) -> str:
    """`a/b.py` -> `a/__pycache__/b.cpython-311.pyc`."""
    folder, _, name = module.rpartition("/")
    return f"{folder}/__pycache__/{name[:-3]}.cpython-311.pyc"
