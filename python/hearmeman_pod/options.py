"""Numbers on the command line, and what is said of those that are none."""

from __future__ import annotations

import argparse
import math


def positive(text: str) -> float:
    """A number above zero."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above zero")
    return value


def whole(text: str) -> int:
    """A whole number, zero or more."""
    if not (text.isascii() and text.isdecimal()) or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, zero or more")
    return int(text)


def count(text: str) -> int:
    """A whole number, one or more."""
    if not whole(text):
        raise argparse.ArgumentTypeError("it is one or more")
    return int(text)


def days(text: str) -> int:
    """A number of days, up to ten years."""
    if not 1 <= whole(text) <= 3650:
        raise argparse.ArgumentTypeError(f"{text} is not a number of days from 1 to 3650")
    return int(text)
