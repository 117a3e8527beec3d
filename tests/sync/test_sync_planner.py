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
from hearmeman.sync.backlog import LONGEST_SETTLE, OPEN_PATIENCE, Backlog, settle_seconds
from hearmeman.sync.bucket import Bucket
from hearmeman.sync.finished import Sign
from hearmeman.sync.journal import Journal, Record
from hearmeman.sync.tree import Seen, look, names
from hearmeman.sync.upload import Sent, Uploader

FILES = ("a.png", "b.png", "s/a.png")
EPOCH = 1_768_700_000.001
_prefixes = itertools.count()

file = st.sampled_from(FILES)
operation = st.one_of(
    st.tuples(st.just("write"), file, st.integers(0, 2), st.booleans()),
    st.tuples(st.just("write"), file, st.integers(0, 2), st.booleans()),
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

    def write(self, name: str, content: int, heard: bool) -> None:
        path = self.uploader.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"%d" % content)
        self.touch(name)
        if heard:
            self.hint(name)

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
        if entry is None or entry.look_at > self.now or not self.backlog.ready(path, Sign.CLOSED, self.now):
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
        self.journal.record([Record(path, sent.size, seen.mtime_ns, sent.sha256, sent.key, self.now)], {})
        self.journal.flush()
        self.backlog.succeeded(path, seen, self.now)
        self.hint(path)

    def crash(self) -> None:
        self.under_way.clear()
        self.backlog = Backlog(self.journal.done())

    def settle(self) -> None:
        for _ in range(40):
            self.scan()
            if not self.backlog.left() and not self.under_way:
                return
            self.wait(LONGEST_SETTLE)
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


@given(st.integers(0, 2**40), st.sampled_from(Sign))
def test_files_settle_within_bounds(size: int, sign: Sign) -> None:
    for moment in (1, 1_000_000_000):
        seconds = settle_seconds(Seen(size, moment, 0, 0), sign)
        assert 0.3 <= seconds <= LONGEST_SETTLE


def test_an_open_file_waits_and_a_forgotten_one_is_sent_at_last() -> None:
    backlog = Backlog({})
    backlog.observe("a.png", Seen(10, 1, 1, 1), 0.0)
    now, path = 0.0, None
    while now < OPEN_PATIENCE + 10:
        now += 0.1
        path = backlog.next_due(now)
        if path is not None:
            backlog.observe(path, Seen(10, 1, 1, 1), now)
            if backlog.ready(path, Sign.OPEN, now):
                break
    assert path == "a.png"
    assert OPEN_PATIENCE <= now <= OPEN_PATIENCE + 6


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
