"""`hearmeman logs`: merged by time, over rotations, and text is only text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hearmeman import cli
from hearmeman.status import logs
from hearmeman.status.logs_command import moment


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "logs"
    made.mkdir()
    (made / "a.log.1").write_text("2026-01-01T00:00:00.000Z a0\n")
    (made / "a.log").write_text("2026-01-01T00:00:01.500Z a1\n2026-01-01T00:00:03.500Z a2\n")
    (made / "b.log").write_text(
        "of an older image\n2026-01-01T00:00:02Z b1 key=1\n2026-01-01T00:00:02.100Z \x1b[31mred\x1b[0m\x07\n"
    )
    return made


def test_lines_are_merged_by_time_and_a_rotated_file_is_read_too(folder: Path) -> None:
    texts = [(line.name, line.text) for line in logs.read(folder, ["a", "b"])]
    assert texts == [
        ("b", "of an older image"),
        ("a", "a0"),
        ("a", "a1"),
        ("b", "b1 key=1"),
        ("b", "red\ufffd"),
        ("a", "a2"),
    ]
    assert [line.text for line in logs.read(folder, ["a", "b"], most=2)] == ["red\ufffd", "a2"]


def test_following_goes_on_over_a_rotation_and_waits_for_whole_lines(folder: Path) -> None:
    follower = logs.Follower(folder)
    assert follower.look() == []
    with (folder / "a.log").open("a") as file:
        file.write("2026-01-01T00:00:04.000Z a3\n2026-01-01T00:00:05.000Z half")
    assert [line.text for line in follower.look()] == ["a3"]
    with (folder / "a.log").open("a") as file:
        file.write(" whole\n")
    (folder / "a.log").rename(folder / "a.log.1")
    (folder / "a.log").write_text("2026-01-01T00:00:06.000Z new file\n")
    (folder / "c.log").write_text("2026-01-01T00:00:07.000Z began later\n")
    assert [line.text for line in follower.look()] == ["half whole", "new file", "began later"]
    assert follower.look() == []


@pytest.mark.parametrize(
    ("text", "at"),
    [("10min", 400), ("90", 910), ("1h", -2600), ("2d", -171800), ("1970-01-01T00:01:00Z", 60), ("1970-01-02", 86400)],
)
def test_since_is_a_span_or_a_time(text: str, at: float) -> None:
    assert moment(text, now=1000.0) == at


def test_the_command_prints_colours_only_where_asked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["logs", "--run-dir", str(folder.parent)]
    assert cli.main([*words, "a"], {}) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2026-01-01 00:00:03 a a2"
    assert cli.main([*words, "--json", "-n", "1"], {}) == 0
    assert json.loads(capsys.readouterr().out)["text"] == "a2"
    assert cli.main([*words, "nobody"], {}) == 2
    assert "there are a, b" in capsys.readouterr().err
    assert cli.main(["logs", "--run-dir", str(folder / "none")], {}) == 1


def test_who_wants_the_end_alone_is_given_no_more_of_what_was_there_or_came_at_once(folder: Path) -> None:
    follower = logs.Follower(folder, ["a"], most_bytes=70)
    assert [line.text for line in follower.look()] == ["a1", "a2"]
    with (folder / "a.log").open("a") as file:
        file.writelines(f"2026-01-01T00:00:04.000Z {number:03}\n" for number in range(100))
    assert [line.text for line in follower.look()] == ["098", "099"]
    assert follower.look() == []
