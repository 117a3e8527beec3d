"""The command's help: groups, an example and exit codes for everything, completion, colours, and no line too wide."""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hearmeman import cli, complete, overview
from hearmeman.boot.shell import shell_file


def parsers() -> Iterator[argparse.ArgumentParser]:
    """Every command's parser, and those of its actions."""

    def below(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for found in action.choices.values():
                    yield found
                    yield from below(found)

    for name in cli.COMMANDS:
        yield from (one for one in below(cli.parser_for([name])) if one.prog.split()[1] == name)


def test_every_help_has_an_example_that_can_be_parsed_and_the_exit_codes() -> None:
    for parser in parsers():
        command = parser.prog.partition(" ")[2]
        text = parser.format_help()
        assert "Exit codes: 0 done" in text
        assert parser.description, parser.prog
        example = text.partition("Example:\n  hearmeman ")[2].splitlines()[0]
        words = example.replace("'a fox'", "fox").replace("'import torch'", "pass").split()
        assert cli.parser_for(words).parse_args(words).command == command.split()[0]
        for action in parser._subparsers._group_actions if parser._subparsers else ():
            assert all(f"    {choice} " in f"{text} ".replace("\n", " \n") for choice in action.choices or ()), (
                parser.prog
            )
    assert set(overview.EXAMPLES) <= {parser.prog.partition(" ")[2] for parser in parsers()}


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_every_help_fits(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    wide = {p.prog: [line for line in p.format_help().splitlines() if len(line) > columns] for p in parsers()}
    assert {prog: lines for prog, lines in wide.items() if lines} == {}


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_the_overview_fits_and_names_every_command_once(columns: int) -> None:
    lines = overview.overview(cli._summaries(), columns).splitlines()
    assert max(map(len, lines)) <= columns
    assert "More" not in lines, "a command is in no group"
    named = [line.split()[0] for line in lines if line.startswith("  ") and not line.startswith("   ")]
    assert sorted(named) == sorted(set(cli.COMMANDS) - cli.HIDDEN)


def test_without_a_word_it_shows_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([], {}) == 0
    assert "hearmeman status --watch" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("environ", "words", "has"),
    [({}, [], False), ({"FORCE_COLOR": "1"}, [], True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, [], False),
     ({"FORCE_COLOR": "1"}, ["--no-color"], False)],
)  # fmt: skip
def test_colours_only_where_they_are_wanted(
    environ: dict[str, str], words: list[str], has: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/a.log").write_text("2026-01-01T00:00:00Z a line\n")
    assert cli.main(["logs", "--run-dir", str(tmp_path), *words], environ) == 0
    assert ("\x1b[" in capsys.readouterr().out) is has


@pytest.mark.parametrize(
    ("words", "some"),
    [
        ([], ["status", "logs", "models"]),
        (["models"], ["list", "show", "plan"]),
        (["models", "fetch"], ["--json", "--no-color"]),
        (["logs"], ["comfyui", "--follow", "--since"]),
        (["restart"], ["comfyui"]),
    ],
)
def test_what_tab_offers(words: list[str], some: list[str], tmp_path: Path) -> None:
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep/comfyui.json").write_text("{}")
    found = complete.candidates(words, tmp_path)
    assert set(some) <= set(found)
    assert "complete" not in found


def test_bash_asks_for_what_is_typed_and_sh_reads_the_same_file(tmp_path: Path) -> None:
    file = tmp_path / "shell.env"
    file.write_text(shell_file({"PATH": "/usr/bin:/bin"}, ()))
    asked = subprocess.run(
        ["bash", "-c", f". {file}; complete -p hearmeman"], capture_output=True, text=True, check=True
    )
    assert "hearmeman complete" in asked.stdout
    subprocess.run(["dash", "-c", f"set -e; . {file}"], check=True)


def test_a_word_with_dashes_is_completed(capsys: pytest.CaptureFixture[str]) -> None:
    line = "hearmeman models plan --js"
    assert cli.main(["complete", "hearmeman", "--js", "plan"], {"COMP_LINE": line, "COMP_POINT": str(len(line))}) == 0
    assert capsys.readouterr().out.split() == ["--json"]
