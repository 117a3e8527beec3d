"""A fetch killed at random points: never a wrong file at its final name, never more than the lost tail fetched again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Literal

import pytest

from fakes.serving import Fault, Stored
from fakes.web import Web
from hearmeman.models.lease import Lease
from hearmeman.state_file import read_json
from support.fetching import Case
from support.waiting import PATIENCE, wait_for

MIB = 1024**2
RATE = 6 * MIB
CONNECTIONS = 4
KILLS = int(os.environ.get("KILLS", "12"))
FILES = {
    f"{n}.bin": Stored(hashlib.shake_128(b"kill%d" % n).digest(size)) for n, size in enumerate((20 * MIB, 9 * MIB, 777))
}


def _is_right(case: Case) -> bool:
    """Whether every file that has its final name is what it should be; the answer is whether all have."""
    there = 0
    for name, stored in FILES.items():
        path = case.folder / f"checkpoints/{name}"
        if path.exists():
            assert path.read_bytes() == stored.data, f"{name} is wrong"
            there += 1
    return there == len(FILES)


Mishap = Literal["html", "json", "gzip", "short", "status", "drop", "truncate"]


def _mishap(dice: random.Random) -> Fault:
    """Something that happens to one answer and costs no byte that has arrived."""
    status = dice.choice([400, 401, 403, 404, 410, 416, 429, 500, 503])
    kind: Mishap = dice.choice(["html", "json", "gzip", "short", "status", "drop", "truncate"])
    return Fault(kind, times=1, after=dice.randrange(4), at=dice.randrange(9 * MIB), status=status)


def _wait_until_begun(process: subprocess.Popen[str], lease: Path) -> None:
    """Wait until the fetch holds the lease: on a loaded machine Python alone takes longer than most kills wait."""
    while process.poll() is None:
        with contextlib.suppress(OSError, ValueError):
            if json.loads(lease.read_text())["pid"] == process.pid:
                return
        time.sleep(0.02)


@pytest.mark.long
def test_killed_at_random_points() -> None:
    """As the pod's user, with mishaps; the same run each time, another one in each soak."""
    seed = random.randrange(1 << 30) if "KILLS" in os.environ else 20
    dice = random.Random(seed)
    print("seed", seed)
    kills = done = mishaps = 0
    lost = 0.0
    with Web(FILES) as web, tempfile.TemporaryDirectory(prefix="kill-") as folder:
        web.rate = RATE
        Path(folder).chmod(0o755)
        while kills < KILLS:
            variables = {"DOWNLOAD_CONNECTIONS": str(CONNECTIONS), "DOWNLOAD_TIMEOUT": "60"}
            case = Case(Path(folder) / str(done), variables)
            before = case.as_in_pod()
            for name, stored in FILES.items():
                source = {"kind": "url", "url": f"{web.url}/{name}"}
                case.add(name[:-4], source, size=len(stored.data), sha256=stored.sha256)
            sent_before, killed_here = sum(r.sent for r in web.requests), 0
            while True:
                web.faults = {name: _mishap(dice) for name in FILES if dice.random() < 0.3}
                mishaps += len(web.faults)
                process = case.start("fetch", before=before)
                _wait_until_begun(process, case.folder / ".hearmeman/lease.json")
                try:
                    process.wait(dice.uniform(0.3, 1.4) if kills < KILLS else 60)
                    break
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    process.communicate()
                    kills, killed_here = kills + 1, killed_here + 1
                    _is_right(case)
            _, err = process.communicate()
            assert process.returncode == 0, err
            assert _is_right(case)
            sent = sum(r.sent for r in web.requests) - sent_before
            total = sum(len(stored.data) for stored in FILES.values())
            # The journal is at most half a second old, and each connection has what is under way in its sockets.
            tail = killed_here * (RATE * CONNECTIONS * 0.7 + CONNECTIONS * 3 * MIB)
            assert sent - total <= tail, f"{sent - total} bytes again after {killed_here} kills"
            lost += sent - total
            done += 1
    print(f"{kills} kills, {mishaps} mishaps, {done} volumes, {lost / kills / MIB:.1f} MiB again for each kill")


def test_a_part_of_another_content_is_not_gone_on_with(tmp_path: Path) -> None:
    """What is staged belongs to one hash; when the catalogue names another, it starts from the first byte."""
    case = Case(tmp_path)
    data = FILES["1.bin"]
    with Web({"1.bin": data}) as web:
        target = case.add("1", {"kind": "url", "url": f"{web.url}/1.bin"}, size=len(data.data), sha256=data.sha256)
        staged = case.folder / ".hearmeman/staging/1"
        staged.mkdir(parents=True)
        (staged / "1.bin").write_bytes(bytes(len(data.data)))
        note = {"size": len(data.data), "sha256": "0" * 64, "etag": "", "done": 9 * MIB - 10, "missing": [[0, 10]]}
        (staged / ".journal.json").write_text(json.dumps(note))
        assert case.run("fetch").code == 0
    assert target.read_bytes() == data.data


def test_a_journal_that_lies_costs_one_more_fetch_and_never_a_wrong_file(tmp_path: Path) -> None:
    """As after a loss of power: the note says that bytes are there, the disk has zeros."""
    case = Case(tmp_path)
    data = FILES["1.bin"]
    with Web({"1.bin": data}) as web:
        target = case.add("1", {"kind": "url", "url": f"{web.url}/1.bin"}, size=len(data.data), sha256=data.sha256)
        staged = case.folder / ".hearmeman/staging/1"
        staged.mkdir(parents=True)
        (staged / "1.bin").write_bytes(bytes(len(data.data)))
        note = {"size": len(data.data), "sha256": data.sha256, "etag": "", "done": 9 * MIB - 10, "missing": [[0, 10]]}
        (staged / ".journal.json").write_text(json.dumps(note))
        done = case.run("fetch")
    assert done.code == 0, done.err
    assert "model.restarted" in done.err
    assert target.read_bytes() == data.data


def test_of_two_pods_on_one_volume_one_fetches_and_the_other_sees_it(tmp_path: Path) -> None:
    with Web(FILES) as web:
        web.rate = RATE / 2
        # Nothing comes before both are there.
        hold = Fault("hold")
        web.faults = dict.fromkeys(FILES, hold)
        case = Case(tmp_path, {"DOWNLOAD_CONNECTIONS": str(CONNECTIONS), "DOWNLOAD_TIMEOUT": "600"})
        for name, stored in FILES.items():
            source = {"kind": "url", "url": f"{web.url}/{name}"}
            case.add(name[:-4], source, size=len(stored.data), sha256=stored.sha256)
        pods = [case.start("fetch", RUNPOD_POD_ID=f"pod{n}") for n in range(2)]
        texts = ["", ""]

        def read(number: int) -> None:
            for line in pods[number].stderr or ():
                texts[number] += line

        readers = [threading.Thread(target=read, args=(number,)) for number in range(2)]
        for reader in readers:
            reader.start()
        wait_for(lambda: any("models.waiting" in text for text in texts), "one to wait", said=lambda: str(texts))
        hold.release.set()
        for reader in readers:
            reader.join()
        assert [pod.wait() for pod in pods] == [0, 0], texts
        sent = sum(request.sent for request in web.requests)
    assert _is_right(case)
    assert sent <= sum(len(stored.data) for stored in FILES.values()) * 1.2
    waited = [text for text in texts if "models.waiting" in text]
    assert len(waited) == 1
    assert 'why="another fetch is running"' in waited[0]
    assert [p for p in re.findall(r"models.waiting .*percent=(\d+)", waited[0]) if int(p) > 0]
    assert not (case.folder / ".hearmeman/lease.json").exists()


@pytest.mark.alone
def test_sigterm_ends_it_at_once_and_leaves_no_lease(tmp_path: Path) -> None:
    with Web(FILES) as web:
        web.rate = MIB // 2
        case = Case(tmp_path)
        case.add("0", {"kind": "url", "url": f"{web.url}/0.bin"}, size=20 * MIB, sha256=FILES["0.bin"].sha256)
        process = case.start("fetch")
        lease = case.folder / ".hearmeman/lease.json"
        journal = case.folder / ".hearmeman/staging/0/.journal.json"
        wait_for(lambda: read_json(journal).get("done", 0) > 0, "something to be noted")
        assert lease.exists()
        process.terminate()
        assert process.wait(25) == 130, "it does not wait for the 40 s that the file would take"
        process.communicate()
        assert not lease.exists()
        assert json.loads(journal.read_text())["done"] > 0


@pytest.mark.alone
def test_a_dead_holders_lease_is_taken_over_by_its_silence(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    words: list[object] = []
    path.write_text(json.dumps({"owner": "another", "host": "elsewhere", "pid": 1, "began": 1, "beat": "0000000007"}))
    began = time.monotonic()
    with Lease(path, "me", words.append, beat_seconds=0.1, dead_seconds=0.6) as lease:
        assert 0.5 < time.monotonic() - began < 10, "a minute is what it waits for by default"
        lease.require()
    assert words
    assert not path.exists()


def test_a_holder_that_lives_keeps_its_lease(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    order: list[str] = []

    # On a busy machine a beat may come late.
    def second() -> None:
        with Lease(path, "second", lambda words: None, beat_seconds=0.1, dead_seconds=3):
            order.append("second")

    with Lease(path, "first", lambda words: None, beat_seconds=0.1, dead_seconds=3):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(4)
        order.append("first")
    thread.join(PATIENCE)
    assert order == ["first", "second"]


def test_who_was_taken_for_dead_puts_nothing_in_its_place(tmp_path: Path) -> None:
    from hearmeman.models.errors import LeaseLostError

    path = tmp_path / "lease.json"
    with Lease(path, "slow", lambda words: None) as lease:
        path.unlink()
        with (
            Lease(path, "quick", lambda words: None) as other,
            pytest.raises(LeaseLostError, match="another pod has taken over"),
        ):
            other.require()
            lease.require()
        assert not path.exists()


@pytest.mark.parametrize("number", range(3))
def test_many_who_find_a_dead_lease_hold_it_one_after_another(tmp_path: Path, number: int) -> None:
    path = tmp_path / "lease.json"
    path.write_text(json.dumps({"owner": "another", "host": "elsewhere", "beat": "1"}))
    inside = [0]
    most = [0]
    lock = threading.Lock()

    def one(name: str) -> None:
        with Lease(path, name, lambda words: None, beat_seconds=0.05, dead_seconds=2):
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            time.sleep(0.05)
            with lock:
                inside[0] -= 1

    threads = [threading.Thread(target=one, args=(f"t{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert most == [1]
