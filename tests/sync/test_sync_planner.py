"""The planner: any interleaving of writes, renames, deletions, failures and crashes ends with each file sent once."""

from __future__ import annotations

import hashlib
import itertools
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.r2 import R2
from hearmeman.settings import load
from hearmeman.sync.backlog import Backlog
from hearmeman.sync.bucket import Bucket
from hearmeman.sync.finished import OPEN_PATIENCE, PATIENCE, STOP_SETTLE, Form, Writer, still_seconds
from hearmeman.sync.journal import Journal, Record
from hearmeman.sync.tree import Seen, look, names
from hearmeman.sync.upload import Sent, Uploader

FILES = ("a.png", "b.png", "s/a.png")
EPOCH = 1_768_700_000.001
_prefixes = itertools.count()

file = st.sampled_from(FILES)
operation = st.one_of(
    st.tuples(st.just("write"), file, st.integers(0, 2), st.sampled_from((None, *Writer))),
    st.tuples(st.just("write"), file, st.integers(0, 2), st.sampled_from((None, *Writer))),
    st.tuples(st.just("lose_news")),
    st.tuples(st.just("rename"), file, file),
    st.tuples(st.just("delete"), file),
    st.tuples(st.just("touch"), file),
    st.tuples(st.just("wait"), st.sampled_from((0.1, 0.4, 3.0))),
    st.tuples(st.just("scan")),
    st.tuples(st.just("start"), st.booleans()),
    st.tuples(st.just("start"), st.booleans()),
    st.tuples(st.just("end"), st.booleans()),
    st.tuples(st.just("crash")),
)


@pytest.fixture(scope="module")
def r2() -> Iterator[R2]:
    with R2() as server:
        yield server


@dataclass
class World:
    """A folder, a bucket, a journal and a planner, under a clock of their own."""

    uploader: Uploader
    journal: Journal
    backlog: Backlog
    now: float = 0.0
    under_way: list[tuple[str, Seen, Sent | None]] = field(default_factory=list)
    keys: dict[tuple[str, str], set[str]] = field(default_factory=dict)

    def write(self, name: str, content: int, heard: Writer | None) -> None:
        path = self.uploader.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"%d" % content)
        self.touch(name)
        if heard is not None:
            self.backlog.reported(name, look(self.uploader.root, name), heard, self.now)

    def lose_news(self) -> None:
        self.backlog.forget_writers()

    def touch(self, name: str) -> None:
        path = self.uploader.root / name
        if path.exists():
            # Each change has a time of its own, as on a filesystem whose clock is fine enough.
            self.now += 0.001
            moment = int((EPOCH + self.now) * 1e9) | 1
            os.utime(path, ns=(moment, moment))

    def rename(self, old: str, new: str) -> None:
        if (self.uploader.root / old).exists():
            (self.uploader.root / new).parent.mkdir(exist_ok=True)
            (self.uploader.root / old).rename(self.uploader.root / new)

    def delete(self, name: str) -> None:
        (self.uploader.root / name).unlink(missing_ok=True)

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def hint(self, name: str) -> None:
        self.backlog.observe(name, look(self.uploader.root, name), self.now)

    def scan(self) -> None:
        there = [name for name in FILES if (self.uploader.root / name).exists()]
        for name in there:
            self.hint(name)
        self.backlog.vanished(there, self.now)

    def start(self, patiently: bool) -> None:
        if patiently:
            self.scan()
            self.wait(1.0)
        path = self.backlog.next_due(self.now)
        if path is None:
            return
        self.hint(path)
        entry = self.backlog.waiting.get(path)
        if entry is None or entry.look_at > self.now or not self.backlog.ready(path, Form.NONE, self.now):
            return
        seen = self.backlog.started(path)
        sent = self.uploader.upload(path, seen)
        self.keys.setdefault((path, sent.sha256), set()).add(sent.key)
        self.under_way.append((path, seen, sent))

    def end(self, fails: bool) -> None:
        if not self.under_way:
            return
        path, seen, sent = self.under_way.pop(0)
        if fails or sent is None:
            self.backlog.failed(path, self.now + 1)
            return
        if self.backlog.succeeded(path, seen, self.now):
            self.journal.record([Record(path, sent.size, seen.mtime_ns, sent.sha256, sent.key, self.now)], {})
            self.journal.flush()
        self.hint(path)

    def crash(self) -> None:
        self.under_way.clear()
        self.backlog = Backlog(self.journal.done())

    def settle(self) -> None:
        for _ in range(40):
            self.scan()
            if not self.backlog.left() and not self.under_way:
                return
            self.wait(PATIENCE)
            for _ in FILES:
                self.start(False)
            while self.under_way:
                self.end(False)
        raise AssertionError(f"never done: {self.backlog.left()}")


@given(st.lists(operation, max_size=40))
def test_every_file_ends_in_the_bucket_once(r2: R2, operations: list[tuple[object, ...]]) -> None:
    prefix = f"p{next(_prefixes)}"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "output"
        root.mkdir()
        journal = Journal(Path(":memory:"))
        bucket = Bucket(load(r2.environ()), 2)
        world = World(Uploader(bucket, prefix, root, journal), journal, Backlog({}))
        for name, *arguments in operations:
            getattr(world, str(name))(*arguments)
        world.settle()
        stored = {key: body for key, body in r2.contents().items() if key.startswith(f"{prefix}/")}
        for name in FILES:
            if (root / name).exists():
                content = (root / name).read_bytes()
                (key,) = world.keys[name, hashlib.sha256(content).hexdigest()]
                assert stored[key] == content
        assert all(len(keys) == 1 for keys in world.keys.values())
        assert {key for keys in world.keys.values() for key in keys} == set(stored)
        assert r2.overwritten == []
        # The journal spares the bucket: after a restart nothing is asked.
        asked = len(r2.requests)
        world.crash()
        world.settle()
        assert len(r2.requests) == asked
        journal.close()


@given(st.integers(0, 2**40), st.sampled_from(Writer), st.sampled_from(Form))
def test_files_settle_within_bounds(size: int, writer: Writer, form: Form) -> None:
    for moment in (1, 1_000_000_000):
        seen = Seen(size, moment, 0, 0)
        assert 0.3 <= still_seconds(seen, writer, form) <= OPEN_PATIENCE
        stopping = still_seconds(seen, writer, form, stopping=True)
        assert stopping <= STOP_SETTLE or writer is Writer.OPEN


def first_ready(backlog: Backlog, path: str, form: Form, seen: Seen) -> float:
    """The clock at which a file that stays as it is is sent, when the planner is asked as the daemon asks it."""
    now = 0.0
    while True:
        look_at = backlog.next_look()
        assert look_at is not None
        now = max(now, look_at)
        while (named := backlog.next_due(now)) is not None:
            assert named == path
            backlog.observe(path, seen, now)
            if backlog.ready(path, form, now):
                return now


@pytest.mark.parametrize(
    ("writer", "form", "size", "least", "most"),
    [
        (Writer.CLOSED, Form.WHOLE, 10, 0.0, 0.5),
        (Writer.CLOSED, Form.NONE, 10, 0.0, 0.5),
        (Writer.CLOSED, Form.HALF, 10, 30, 120),
        (Writer.CLOSED, Form.NONE, 0, 30, 120),
        (Writer.UNKNOWN, Form.WHOLE, 10, 0.0, 0.5),
        (Writer.UNKNOWN, Form.NONE, 10, 10, 20),
        (Writer.UNKNOWN, Form.HALF, 10, 300, 310),
        (Writer.UNKNOWN, Form.NONE, 0, 300, 310),
        (Writer.OPEN, Form.WHOLE, 10, 300, 310),
        (Writer.OPEN, Form.HALF, 10, 3600, 3610),
        (Writer.OPEN, Form.NONE, 0, 3600, 3610),
    ],
)
def test_how_long_a_still_file_is_waited_for(writer: Writer, form: Form, size: int, least: float, most: float) -> None:
    backlog, seen = Backlog({}), Seen(size, 1, 1, 1)
    backlog.reported("a.png", seen, writer, 0.0)
    assert least <= first_ready(backlog, "a.png", form, seen) <= most


def test_a_file_that_is_found_has_been_still_since_its_own_time() -> None:
    seen = Seen(10, 1_000_000_000_500_000_000, 1, 1)
    for age, ready in ((3600.0, True), (5.0, False), (-3600.0, False)):  # The last: another machine's clock is ahead.
        backlog = Backlog({}, unix=1_000_000_000.5 + age)
        backlog.observe("a.mp3", seen, 0.0)
        assert backlog.ready("a.mp3", Form.NONE, 0.1) is ready
        # What the kernel reports is as old as the report.
        backlog.reported("b.mp3", seen, Writer.CLOSED, 0.0)
        assert not backlog.ready("b.mp3", Form.NONE, 0.1)


def test_a_second_write_in_the_same_moment_is_not_missed() -> None:
    # A clock that keeps whole seconds shows both files alike; the kernel's report tells them apart.
    backlog, seen = Backlog({}), Seen(10, 1_000_000_000, 1, 1)
    backlog.reported("a.png", seen, Writer.CLOSED, 0.0)
    backlog.started("a.png")
    backlog.reported("a.png", seen, Writer.CLOSED, 0.1)
    assert not backlog.succeeded("a.png", seen, 0.2)
    assert backlog.started("a.png") == seen
    assert backlog.succeeded("a.png", seen, 0.3)
    assert not backlog.left()
    backlog.reported("a.png", seen, Writer.CLOSED, 0.4)
    assert list(backlog.left()) == ["a.png"]


def test_a_change_that_nobody_reported_is_another_machines() -> None:
    backlog = Backlog({})
    backlog.reported("a.gif", Seen(10, 1, 1, 1), Writer.CLOSED, 0.0)
    backlog.observe("a.gif", Seen(20, 2, 1, 1), 0.1)
    assert not backlog.ready("a.gif", Form.NONE, 5.0)
    # New attributes (a copy's time, set after its close) are no write.
    backlog.reported("a.gif", Seen(20, 2, 1, 1), Writer.CLOSED, 6.0)
    backlog.reported("a.gif", Seen(20, 3, 1, 1), None, 6.1)
    assert backlog.ready("a.gif", Form.NONE, 7.0)


def test_the_newest_files_come_first() -> None:
    backlog = Backlog({})
    for number in (3, 1, 2):
        backlog.observe(f"{number}.png", Seen(10, number, number, 1), 0.0)
    assert [backlog.next_due(5.0) for _ in range(4)] == ["3.png", "2.png", "1.png", None]


def test_names_of_outputs() -> None:
    wanted = names(".png, MP4,")
    for name in ("a.png", "A.PNG", "sub/x.Mp4", "ü .png", "a.tmpfile.png", "-.png"):
        assert wanted.path(name), name
    for name in (".a.png", "a.tmp.png", "a.part.mp4", "~a.png", "a.txt", "png", ".png", "a.png~", ".sub/a.png"):
        assert not wanted.path(name), name
