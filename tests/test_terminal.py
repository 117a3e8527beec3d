"""What terminals show: units that people read, tables that fit, bars on terminals alone, colours only if wanted."""

import os
import pty
import re
import subprocess
import sys
import termios

import pytest

from hearmeman import terminal
from support.repository import ROOT
from support.waiting import PATIENCE


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1536, "1.54 kB"),
        (842_300, "842 kB"),
        (999_700, "1 MB"),
        (17_200_000, "17.2 MB"),
        (1_340_000_000, "1.34 GB"),
        (28_600_000_000, "28.6 GB"),
        (999_960_000_000, "1 TB"),
        (3e18, "3000 PB"),
        (-2_000_000, "-2 MB"),
    ],
)
def test_sizes_have_three_digits(count: float, text: str) -> None:
    assert terminal.size(count) == text


def test_memory_is_counted_in_powers_of_1024_and_speed_in_bytes_a_second() -> None:
    assert terminal.binary_size(24564 * 1024**2) == "24 GiB"
    assert terminal.binary_size(512 * 1024**2) == "512 MiB"
    assert terminal.rate(112_400_000) == "112 MB/s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.44, "0.4 s"),
        (9.97, "10 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (349_200, "4 d 1 h"),
        (-5, "-5 s"),
    ],
)
def test_time_spans_have_their_two_largest_units(seconds: float, text: str) -> None:
    assert terminal.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "just now"), (-3, "just now"), (42, "42 s ago"), (200, "3 min ago"), (2e5, "2 d ago")]
)
def test_ages_have_their_largest_unit(seconds: float, text: str) -> None:
    assert terminal.age(seconds) == text


ROWS = [
    (
        "sync",
        "12.3 MB",
        "the endpoint answers with 403 Forbidden: give the token read and write on the bucket [runpod]",
    ),
    ("comfyui", "1 B", "runs"),
]


def test_a_table_fits_and_loses_nothing() -> None:
    for columns in (60, 80):
        lines = terminal.table(ROWS, ("name", "size", "what"), right=[1], columns=columns)
        assert max(map(len, lines)) <= columns
        words = " ".join(lines).split()
        assert all(word in words for row in ROWS for cell in row for word in cell.split())
    assert lines[0].split() == ["name", "size", "what"]


def test_a_wide_terminal_gets_every_row_in_one_line() -> None:
    lines = terminal.table(ROWS, columns=140)
    assert lines == [f"sync     12.3 MB  {ROWS[0][2]}", "comfyui  1 B      runs"]


def test_a_word_that_is_too_long_goes_on_in_the_next_line() -> None:
    path = "/workspace/ComfyUI/models/" + "x" * 100
    lines = terminal.table([("file", path)], columns=60)
    assert max(map(len, lines)) <= 60
    assert "".join(line[6:] for line in lines) == path


def test_names_stay_whole_while_there_is_room_for_the_rest() -> None:
    rows = [("a-name-that-is-rather-long-1", "word " * 20), ("b", "c")]
    assert terminal.table(rows, columns=60)[0].split()[0] == rows[0][0]
    narrow = terminal.table(rows, columns=40)
    assert max(map(len, narrow)) <= 40
    assert "".join(line.split(" ")[0] for line in narrow).startswith(rows[0][0])


def test_wide_characters_take_two_columns() -> None:
    lines = terminal.table([("日本語", "a"), ("x", "b")], columns=60)
    assert lines == ["日本語  a", "x       b"]


def test_an_empty_table_is_nothing() -> None:
    assert terminal.table([]) == []


def test_a_name_that_repeats_is_shown_once() -> None:
    assert terminal.pairs([("door", "8188"), ("door", "22"), ("x", 1)], columns=60) == [
        "door  8188",
        "      22",
        "x     1",
    ]


@pytest.mark.parametrize("columns", [(80, 80), (132, 132), (7, terminal.NARROWEST)])
def test_the_width_is_columns_or_else_the_terminal_s(monkeypatch: pytest.MonkeyPatch, columns: tuple[int, int]) -> None:
    monkeypatch.setenv("COLUMNS", str(columns[0]))
    assert terminal.width() == columns[1]


_DRAW = """
import sys
from hearmeman.terminal import Bar, bars
shown = bars(sys.stderr, stays=True)
print("none" if shown is None else "some", flush=True)
if shown is not None:
    with shown:
        name = "wan2.2_t2v_high_noise_14B_" + "very_" * 20 + "long.safetensors"
        shown.draw({"": Bar("1 of 3 files", 1.2e9, 17e9), "a": Bar(name, 2.5e8, 1e9), "b": Bar("gone", 1)})
        shown.draw({"": Bar("1 of 3 files", 1.3e9, 17e9), "a": Bar(name, 5e8, 1e9)})
"""


def drawn(columns: int, **variables: str) -> tuple[str, str]:
    """Draw bars on a terminal of so many columns: what was printed, and what the terminal was sent."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "python"), "TERM": "xterm", **variables}
    child = subprocess.Popen([sys.executable, "-c", _DRAW], env=environ, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    seen = b""
    while True:
        try:
            more = os.read(ours, 65536)
        except OSError:  # The other end is closed.
            break
        seen += more
    os.close(ours)
    assert child.stdout is not None
    with child.stdout:
        printed = child.stdout.read().decode().strip()
    assert child.wait(PATIENCE) == 0
    return printed, seen.decode()


_ESCAPES = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]")


@pytest.mark.parametrize("columns", [80, 140])
def test_bars_fit_the_terminal_and_show_how_far_each_file_is(columns: int) -> None:
    printed, seen = drawn(columns)
    assert printed == "some"
    lines = [line.rstrip() for line in _ESCAPES.sub("", seen).replace("\r", "\n").splitlines() if line.strip()]
    assert max(map(len, lines)) <= columns
    last = lines[-2:]
    assert "1.3/17.0 GB" in last[0]
    assert "0.5/1.0 GB" in last[1]
    assert last[1].startswith("wan2.2_t2v") and "ong.safetensors" in last[1]
    assert all("gone" not in line for line in last)


def test_no_color_and_dumb_terminals_are_heeded() -> None:
    coloured, plain = drawn(80)[1], drawn(80, NO_COLOR="1")[1]
    assert re.search(r"\x1b\[[0-9;]*3[0-9][;m]", coloured)
    assert not re.search(r"\x1b\[[0-9;]*(3[0-9]|38|9[0-7])[;m]", plain)
    assert drawn(80, TERM="dumb") == ("none", "")


def test_a_pipe_gets_no_bars() -> None:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "python"), "TERM": "xterm"}
    done = subprocess.run([sys.executable, "-c", _DRAW], env=environ, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("none\n", "")


def test_one_is_no_plural() -> None:
    assert [terminal.count(number, "file") for number in (0, 1, 2048)] == ["0 files", "1 file", "2,048 files"]
