"""The parts of docs/ that repeat the code say what the code says."""

from __future__ import annotations

import importlib.util
import sys

from support.repository import ROOT


def test_generated_docs_are_fresh() -> None:
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "docs/generate.py")
    assert spec is not None and spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = generate
    spec.loader.exec_module(generate)
    stale = [path.name for path, text in generate.render().items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run `make docs`"
