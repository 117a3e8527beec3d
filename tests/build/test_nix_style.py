"""nix/ is laid out as nixfmt lays it out, as far as lines can show it, and its own cases hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hearmeman_build.host import ROOT, nix

FOLDERS = (ROOT, ROOT / "nix", ROOT / "nix/offline", ROOT / "tests/worlds")
FILES = sorted({file for folder in FOLDERS for file in folder.glob("*.nix" if folder == ROOT else "**/*.nix")})
COLUMNS = 120
ONE_BINDING = re.compile(r"\{ [^{};]*; \}")
STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


def faults(text: str) -> list[str]:
    """What is wrong with a file's layout, each with its line's number."""
    found = [] if text.startswith("# ") else ["1: it does not begin with a sentence that says what it is for"]
    if not text.endswith("\n") or text.endswith("\n\n"):
        found.append("it does not end with one newline")
    block = False
    for number, line in enumerate(text.splitlines(), 1):
        bare = STRING.sub('""', line).partition("#")[0]
        if len(line) > COLUMNS:
            found.append(f"{number}: {len(line)} columns, {COLUMNS} are allowed")
        if "\t" in line or line != line.rstrip():
            found.append(f"{number}: a tab, or a blank at the end")
        if not block and (len(line) - len(line.lstrip())) % 2:
            found.append(f"{number}: indented by an odd number of blanks")
        # A set of one binding may stand in a line.
        if not block and len(re.findall(";", ONE_BINDING.sub("{}", bare))) > 1:
            found.append(f"{number}: two bindings in one line")
        if not block and re.match(r"\s*with\s", bare):
            found.append(f"{number}: `with` hides where a name is from: write `inherit (…)`")
        if bare.count("''") % 2:
            block = not block
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_layout(file: Path) -> None:
    assert faults(file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{ }\n", "does not begin with a sentence"),
        ("# A set.\n{ }", "one newline"),
        ("# A set.\n{\n   a = 1;\n}\n", "3: indented by an odd number"),
        ("# A set.\n{\n\ta = 1;\n}\n", "3: a tab"),
        ("# A set.\n{ a = 1; b = 2; }\n", "2: two bindings in one line"),
        (f'# A set.\n{{\n  a = "{"x" * 120}";\n}}\n', "3: 129 columns"),
        ("# A set.\nwith builtins;\n{ }\n", "2: `with` hides"),
    ],
)
def test_what_is_out_of_line_is_named(text: str, why: str) -> None:
    assert [fault for fault in faults(text) if why in fault]


def test_the_cases_beside_the_functions_hold() -> None:
    expression = f"(import {ROOT}/nix/lib.nix).failing (import {ROOT}/nix/lib.tests.nix)"
    assert nix("eval", "--impure", "--json", "--expr", expression) == "[]"
