"""Every sentence in the code that says what to do is in a table with the test that does it; sentences.tsv is the table.

A row has a file (its path below python/, * for any part), words of the sentence ({} for what is put in), and what
follows it: a test, `needs …` where no machine of ours can, `judge` where a person has to decide what it is about,
`no advice` for what only reads like it, and `open` for what nobody has followed yet.
"""

from __future__ import annotations

import ast
import csv
import functools
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from advice.sentences import sentences
from support.repository import ROOT

TESTS = ROOT / "tests"


class Row(NamedTuple):
    """One row of the table."""

    file: str
    words: str
    followed: str

    def covers(self, file: str, text: str) -> bool:
        """Tell whether the row is about a sentence."""
        return fnmatchcase(file, self.file) and self.words in text


def table() -> list[Row]:
    with Path(__file__).with_name("sentences.tsv").open(encoding="utf-8", newline="") as file:
        return [Row(*row) for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


ROWS = table()
FOUND = [(file, " ".join(text.split())) for file, text in sentences(ROOT / "python")]


def test_every_sentence_that_gives_advice_is_in_the_table() -> None:
    strangers = [(file, text) for file, text in FOUND if not any(row.covers(file, text) for row in ROWS)]
    assert strangers == []


def test_every_row_is_about_a_sentence() -> None:
    assert [row for row in ROWS if not any(row.covers(file, text) for file, text in FOUND)] == []


def test_what_a_row_names_is_a_test() -> None:
    for row in ROWS:
        if row.followed.startswith(("needs ", "judge")) or row.followed in ("no advice", "open"):
            continue
        file, _, name = row.followed.partition("::")
        assert name in functions(TESTS / file), row


@functools.cache
def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
