"""Object names: valid and stable for any file name, and two names never become one."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from hearmeman.sync.keys import LONGEST_KEY, LONGEST_NAME, object_key, utc_date, with_content

part = (
    st.binary(min_size=1, max_size=LONGEST_NAME)
    .map(lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_"))
    .filter(lambda raw: raw not in (b".", b".."))
    .map(os.fsdecode)
)
path = st.lists(part, min_size=1, max_size=16).map("/".join)
moment = st.integers(min_value=-(2**63), max_value=2**63 - 1)
digest = st.binary(min_size=32, max_size=32).map(bytes.hex)


def test_the_specified_form() -> None:
    assert object_key("outputs", "video/a b.png", 1_768_694_400_000_000_000) == "outputs/2026-01-18/video/a b.png"
    assert with_content("outputs/2026-01-18/a.png", "ab" * 32) == "outputs/2026-01-18/a.abababababab.png"
    assert with_content("o/2026-01-18/noextension", "ab" * 32) == "o/2026-01-18/noextension.abababababab"


def test_the_date_is_utc_at_midnight() -> None:
    midnight = 1_768_694_400_000_000_000
    assert (utc_date(midnight - 1), utc_date(midnight)) == ("2026-01-17", "2026-01-18")


@given(path, moment)
def test_a_key_is_valid_and_stable(relative: str, mtime_ns: int) -> None:
    key = object_key("outputs", relative, mtime_ns)
    assert key == object_key("outputs", relative, mtime_ns)
    assert len(with_content(key, "ab" * 32, 64).encode()) <= LONGEST_KEY
    assert all(c >= " " and c != "\x7f" for c in key)


@given(path, path, moment)
def test_two_names_never_meet(one: str, other: str, mtime_ns: int) -> None:
    assert (object_key("o", one, mtime_ns) == object_key("o", other, mtime_ns)) == (one == other)


@given(part, part)
def test_two_close_names_never_meet(one: str, other: str) -> None:
    # A name with escapes against the name that spells those escapes out.
    spelt = object_key("o", one, 0).rpartition("/")[2]
    assert (object_key("o", spelt, 0) == object_key("o", one, 0)) == (spelt == one)


@given(path, moment, digest, digest)
def test_other_content_never_meets(relative: str, mtime_ns: int, one: str, other: str) -> None:
    key = object_key("outputs", relative, mtime_ns)
    assert with_content(key, one, 64) != key
    assert (with_content(key, one, 64) == with_content(key, other, 64)) == (one == other)
