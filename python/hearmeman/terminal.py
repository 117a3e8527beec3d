"""What people see on a terminal: tables, units, ages and bars, made in one place and fitted to its width."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Self

NARROWEST = 40
"""Columns below which nothing is fitted any more."""
_LEAST = 16
"""Columns that a wrapped cell needs to be readable."""


_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_CODES = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "magenta": 35, "cyan": 36, "bold": 1, "dim": 2}
NAME_COLORS = ("cyan", "magenta", "green", "blue", "yellow")
"""Colours that tell processes apart; red is for what is wrong."""

_wanted: bool | None = None


def set_colors(wanted: bool | None) -> None:
    """Have colours or none whatever the output is; None is for terminals alone."""
    global _wanted
    _wanted = wanted


def has_colors(stream: IO[str]) -> bool:
    """Tell whether what is written to `stream` may have colours."""
    return stream.isatty() if _wanted is None else _wanted


def colored(text: str, color: str, stream: IO[str] | None = None) -> str:
    """Colour `text` if the stream (standard output by default) may have colours."""
    return f"\x1b[{_CODES[color]}m{text}\x1b[0m" if text and has_colors(stream or sys.stdout) else text


def plain(text: object) -> str:
    """Give text without a terminal's colours, control characters, and marks that turn the direction of writing.

    A file's name or a program's output can hold what moves the cursor, renames the window or hides what follows.
    """
    return _CONTROL.sub("\ufffd", _ANSI.sub("", str(text)))


def width() -> int:
    """Give the columns that there are: COLUMNS, else the terminal's own, else 80."""
    return max(NARROWEST, shutil.get_terminal_size((80, 24)).columns)


def size(count: float) -> str:
    """Render bytes with three digits and a decimal unit: 842 kB, 17.2 MB, 1.34 GB."""
    return _scaled(count, 1000.0, ("B", "kB", "MB", "GB", "TB", "PB"))


def binary_size(count: float) -> str:
    """Render bytes as memory is counted: 512 MiB, 23.6 GiB."""
    return _scaled(count, 1024.0, ("B", "KiB", "MiB", "GiB", "TiB", "PiB"))


def _scaled(count: float, step: float, units: Sequence[str]) -> str:
    value, sign = abs(float(count)), "-" if count < 0 else ""
    for unit in units:
        digits = 0 if unit == "B" or value >= 99.95 else 1 if value >= 9.995 else 2
        # 999.7 kB would round to 1000 kB.
        if round(value, digits) < step or unit == units[-1]:
            text = f"{value:.{digits}f}"
            return f"{sign}{text.rstrip('0').rstrip('.') if '.' in text else text} {unit}"
        value /= step
    raise AssertionError("the last unit takes everything")


def count(number: int, noun: str) -> str:
    """Render how many of something there are: 1 file, 2,048 files."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def rate(bytes_per_second: float) -> str:
    """Render a speed: 112 MB/s."""
    return f"{size(bytes_per_second)}/s"


def duration(seconds: float) -> str:
    """Render a time span by its two largest units: 0.4 s, 42 s, 3 min 20 s, 2 h 5 min, 4 d 1 h."""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    left = round(seconds)
    for large, unit, small, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if left >= large:
            rest = left % large // small
            return f"{left // large} {unit}" + (f" {rest} {part}" if rest else "")
    return f"{left} s"


def age(seconds: float) -> str:
    """Render how long ago something was by its largest unit: just now, 42 s ago, 3 min ago, 2 d ago."""
    if seconds < 1:
        return "just now"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def table(
    rows: Iterable[Sequence[object]],
    head: Sequence[str] = (),
    right: Iterable[int] = (),
    wraps: Iterable[int] = (-1,),
    columns: int | None = None,
) -> list[str]:
    """Align cells in lines of at most `columns` (the terminal's).

    `head` is a first row; `right` are the columns (from 0) that are aligned to the right, `wraps` those that wrap
    where the terminal is narrow (-1 is the last). Nothing is cut off.
    """
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    found = [[str(cell) for cell in row] for row in rows]
    if not found and not head:
        return []
    columns = columns or width()
    whole = [head, *found] if head else found
    count = len(whole[0])
    may_wrap, to_right = {number % count for number in wraps}, set(right)
    needed = [max(cell_len(row[number]) for row in whole) for number in range(count)]
    kept = sum(needed[number] for number in range(count) if number not in may_wrap)
    # Names stay whole, unless there would be no room for what is said of them.
    rigid = kept + 2 * (count - 1) + sum(min(needed[number], _LEAST) for number in may_wrap) <= columns
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=bool(head))
    for number in range(count):
        # Text, so that brackets in a cell are no markup; a word longer than its column goes on in the next line.
        shown.add_column(
            Text(head[number]) if head else "",
            justify="right" if number in to_right else "left",
            overflow="fold",
            no_wrap=rigid and number not in may_wrap,
        )
    for row in found:
        shown.add_row(*(Text(cell) for cell in row))
    console = Console(width=columns, color_system=None, legacy_windows=False, emoji=False, highlight=False)
    with console.capture() as capture:
        console.print(shown)
    return [line.rstrip() for line in capture.get().splitlines()]


def pairs(rows: Iterable[tuple[str, object]], columns: int | None = None) -> list[str]:
    """Align names and what is said of each, wrapped under itself; a name that repeats is shown once."""
    before, shown = None, []
    for name, text in rows:
        shown.append(("" if name == before else name, text))
        before = name
    return table(shown, columns=columns)


def wrapped(text: str) -> list[str]:
    """Break a sentence into lines of the terminal's columns; a word that is longer stays whole, so that it can be copied."""
    fill = textwrap.TextWrapper(width(), subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return fill.wrap(text)


def shortened(text: str, columns: int) -> str:
    """Leave out the middle of `text` if it is longer than `columns` characters: its end says most of a file name."""
    if len(text) <= columns:
        return text
    end = columns // 2
    return f"{text[: columns - end - 1]}…{text[-end:]}"


@dataclass(frozen=True)
class Bar:
    """One thing that is on its way."""

    name: str
    """What it is; its middle is left out where the terminal is narrow."""
    done: float
    """How much of it is done."""
    total: float | None = None
    """How much there is; None when that is not known."""


class Bars:
    """Bars on a terminal, for bytes or for steps; on anything else `bars` makes none."""

    def __init__(self, stream: IO[str], steps: bool = False, stays: bool = False) -> None:
        """Start drawing on `stream`; `stays` leaves the last picture there."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.table import Column

        def column(justify: Any = "left") -> Column:
            return Column(no_wrap=True, justify=justify)

        counts: tuple[ProgressColumn, ...] = (
            MofNCompleteColumn(table_column=column("right")),
            # A long step shows that time goes on.
            TimeElapsedColumn(table_column=column("right")),
            TimeRemainingColumn(compact=True, table_column=column("right")),
        )
        if not steps:
            counts = (
                DownloadColumn(table_column=column("right")),
                TransferSpeedColumn(table_column=column("right")),
                TimeRemainingColumn(compact=True, table_column=column("right")),
            )
        console = Console(file=stream)
        self._name_width = max(12, console.width - (44 if steps else 50))
        name = TextColumn("{task.description}", markup=False, table_column=column())
        self._rich = Progress(
            name,
            BarColumn(None),
            *counts,
            console=console,
            expand=True,
            transient=not stays,
            redirect_stdout=sys.stdout.isatty(),  # What is printed into a file or a pipe must go there.
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._rich.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Draw nothing more."""
        self._rich.stop()

    def draw(self, bars: Mapping[str, Bar]) -> None:
        """Draw exactly these, by a key of each that stays the same; new ones come below."""
        self._rich.start()
        for key in [key for key in self._tasks if key not in bars]:
            self._rich.remove_task(self._tasks.pop(key))
        for key, bar in bars.items():
            name = shortened(bar.name, self._name_width)
            if key not in self._tasks:
                self._tasks[key] = self._rich.add_task(name, total=bar.total)
            self._rich.update(self._tasks[key], description=name, total=bar.total, completed=bar.done)


def bars(stream: IO[str], steps: bool = False, stays: bool = False) -> Bars | None:
    """Make bars where `stream` is a terminal that can redraw a line; None where log lines say more."""
    from rich.console import Console

    console = Console(file=stream)
    return Bars(stream, steps, stays) if console.is_terminal and not console.is_dumb_terminal else None
