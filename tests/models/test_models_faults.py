"""Whatever a server does, what gets a final name is right, and what does not has its own sentence."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.hub import Hub, Repo
from fakes.serving import Fault, Stored
from fakes.web import Web
from support.fetching import Case
from support.waiting import wait_for

MIB = 1024**2
DATA = hashlib.shake_128(b"faults").digest(10 * MIB + 12345)
OTHER = hashlib.shake_128(b"other").digest(9 * MIB + 1)


@pytest.fixture
def web() -> Iterator[Web]:
    with Web({"file.bin": Stored(DATA)}) as running:
        yield running


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def locked(web: Web, path: str = "file.bin") -> dict[str, object]:
    return {"source": {"kind": "url", "url": f"{web.url}/{path}"}, "size": len(DATA), "sha256": Stored(DATA).sha256}


def unlocked(web: Web, path: str = "file.bin") -> dict[str, object]:
    return {"source": {"kind": "url", "url": f"{web.url}/{path}"}}


@pytest.mark.parametrize("facts", [locked, unlocked])
@pytest.mark.parametrize(
    "fault",
    [
        Fault("stall", times=2, at=3 * MIB),
        Fault("drop", times=3, at=MIB),
        Fault("truncate", times=2, at=0),
        Fault("status", times=2, status=503),
        Fault("status", times=1, status=429, headers={"Retry-After": "1"}),
        Fault("lie", times=1),
        Fault("no_ranges"),
        Fault("whole", times=2, at=6 * MIB),
        Fault("chunked"),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.status}" if fault.kind == "status" else fault.kind,
)
def test_what_passes_is_waited_out(web: Web, case: Case, fault: Fault, facts: object) -> None:
    web.faults["file.bin"] = fault
    assert callable(facts)
    target = case.add("one", **facts(web))
    done = case.run("fetch", DOWNLOAD_TIMEOUT="9")
    assert done.code == 0, done.err
    assert target.read_bytes() == DATA
    assert case.state()["state"] == "complete"
    assert not list((case.folder / ".hearmeman/staging").iterdir())


@pytest.mark.parametrize(
    ("fault", "told", "code"),
    [
        (Fault("html"), "sent a web page instead of the file", 1),
        (Fault("json"), "sent a message instead of the file", 1),
        (Fault("gzip"), "sent the file compressed (gzip), although it was asked not to", 1),
        (Fault("status", status=401), "requires a token (401)", 1),
        (Fault("status", status=403), "denies access (403)", 1),
        (Fault("status", status=404), "has no such file (404)", 1),
        (Fault("status", status=416), "has a shorter file than the catalogue says", 1),
        (Fault("stall"), "nothing arrived for 1 s", 75),
        (Fault("truncate", at=0), "nothing arrived for 1 s", 75),
        (Fault("status", status=500), "nothing arrived for 1 s", 75),
        (Fault("flip", at=5 * MIB), "both times its sha256 is", 1),
        (Fault("change", other=OTHER), "the file changed upstream, nothing here is corrupt", 1),
    ],
    ids=lambda value: value.kind + str(value.status) if isinstance(value, Fault) else "",
)
def test_what_stays_wrong_has_its_own_sentence(web: Web, case: Case, fault: Fault, told: str, code: int) -> None:
    """A plain address is the source itself: what it says several times is final. Silence passes."""
    web.faults["file.bin"] = fault
    target = case.add("one", **locked(web))  # type: ignore[arg-type]
    done = case.run("fetch", DOWNLOAD_TIMEOUT="1" if code == 75 else "60")
    assert done.code == code, done.err
    assert told in done.err
    assert "checkpoints/one.bin" in done.err
    assert not target.exists()
    assert case.state()["state"] == "incomplete"
    assert told in case.state()["files"]["one"]["problem"]


ONCE = [
    Fault("html", times=1),
    Fault("json", times=1),
    Fault("gzip", times=1),
    Fault("short", times=1, at=1000),
    Fault("no_ranges", times=1),
    *(Fault("status", times=1, status=status) for status in (400, 401, 403, 404, 410, 416, 451)),
]


@pytest.mark.parametrize("first", [True, False], ids=["first", "second"])
@pytest.mark.parametrize("fault", ONCE, ids=lambda f: f"{f.kind}-{f.status}" if f.kind == "status" else f.kind)
def test_one_answer_that_contradicts_the_source_costs_a_new_link(tmp_path: Path, fault: Fault, first: bool) -> None:
    """From storage it is the first answer, or one in the middle of the file; what has arrived is kept."""
    case, stored = Case(tmp_path), Stored(DATA)
    with Hub({"a/b": Repo({"f.bin": stored})}) as hub:
        case.variables["HF_ENDPOINT"] = hub.url
        hub.faults[stored.sha256] = dataclasses.replace(fault, after=0 if first else 1)
        source = {"kind": "huggingface", "repo": "a/b", "path": "f.bin"}
        target = case.add("one", source, size=len(DATA), sha256=stored.sha256)
        done = case.run("fetch", DOWNLOAD_CONNECTIONS_PER_FILE="1" if first else "3")
        sent = hub.sent(stored.sha256)
    assert done.code == 0, done.err
    assert target.read_bytes() == DATA
    assert hub.faults[stored.sha256].times == 0, "the fault befell nothing"
    assert first or sent < len(DATA) * 1.5


def test_storage_that_goes_on_denying_what_the_hub_states_is_a_passing_cause(tmp_path: Path) -> None:
    case, stored = Case(tmp_path), Stored(DATA)
    with Hub({"a/b": Repo({"f.bin": stored})}) as hub:
        case.variables["HF_ENDPOINT"] = hub.url
        hub.faults[stored.sha256] = Fault("status", status=403)
        case.add("one", {"kind": "huggingface", "repo": "a/b", "path": "f.bin"})
        done = case.run("fetch")
        assert done.code == 75, done.err
        assert "rejects its own link (403)" in done.err
        assert "1 of them may work later" in done.err
        assert hub.links <= 6, "a bounded number of links"
        hub.faults.clear()
        assert case.run("fetch").code == 0


def test_one_flipped_bit_is_found_and_the_file_fetched_again(web: Web, case: Case) -> None:
    web.faults["file.bin"] = Fault("flip", times=1, at=100)
    target = case.add("one", **locked(web))  # type: ignore[arg-type]
    done = case.run("fetch")
    assert done.code == 0, done.err
    assert "model.restarted" in done.err
    assert target.read_bytes() == DATA


def test_a_file_that_changes_between_ranges_is_one_or_the_other(web: Web, case: Case) -> None:
    """The first answer is of the old file, all later ones of the new: never a mixture."""
    target = case.add("one", **unlocked(web))  # type: ignore[arg-type]
    web.rate = 4 * MIB
    web.faults["file.bin"] = Fault("drop", times=1, at=MIB)

    def change() -> None:
        # Only once the first answer's bytes are on their way: a loaded machine may take a while.
        wait_for(lambda: web.requests, "the first answer")
        web.files["file.bin"] = Stored(OTHER)

    timer = threading.Thread(target=change)
    timer.start()
    done = case.run("fetch")
    timer.join()
    assert done.code == 0, done.err
    assert target.read_bytes() == OTHER
    assert "changed while it was fetched: starting over" in done.err


@pytest.mark.parametrize(
    ("path", "told"), [("round/file.bin", "redirects endlessly"), ("nothing.bin", "has no such file (404)")]
)
def test_bad_addresses(web: Web, case: Case, path: str, told: str) -> None:
    case.add("one", **unlocked(web, path))  # type: ignore[arg-type]
    done = case.run("fetch")
    assert done.code == 1
    assert told in done.err


def test_redirects_are_followed(web: Web, case: Case) -> None:
    target = case.add("one", **locked(web, "old/file.bin"))  # type: ignore[arg-type]
    assert case.run("fetch").code == 0
    assert target.read_bytes() == DATA


def test_git_lfs_by_its_batch_api(web: Web, case: Case) -> None:
    source = {"kind": "git-lfs", "repo": f"{web.url}/someone/models", "path": "file.bin"}
    target = case.add("one", source, size=len(DATA), sha256=Stored(DATA).sha256)
    done = case.run("fetch")
    assert done.code == 0, done.err
    assert target.read_bytes() == DATA
    assert all(request.headers["x-lfs"] == "yes" for request in web.requests if request.path == "/file.bin")


def test_git_lfs_object_that_is_not_there(web: Web, case: Case) -> None:
    source = {"kind": "git-lfs", "repo": f"{web.url}/someone/models.git"}
    case.add("one", source, size=5, sha256="0" * 64)
    done = case.run("fetch")
    assert done.code == 1
    assert "does not have that object: Object does not exist" in done.err


def test_sixteen_of_twenty(tmp_path: Path) -> None:
    """One is not there, one is cut short, one stands still, one is gated: the other sixteen are present and verified."""
    files = {f"f{n:02}.bin": Stored(hashlib.shake_128(b"%d" % n).digest(300_000 + n)) for n in range(20)}
    gated = {"f03.bin": files.pop("f03.bin")}
    there = {name: stored for name, stored in files.items() if name != "f00.bin"}
    case = Case(tmp_path)
    with Hub({"a/open": Repo(there), "a/gated": Repo(gated, gated=True)}) as hub:
        case.variables["HF_ENDPOINT"] = hub.url
        hub.faults[files["f01.bin"].sha256] = Fault("truncate", at=1000)
        hub.faults[files["f02.bin"].sha256] = Fault("stall", at=100_000)
        for name, stored in sorted({**files, **gated}.items()):
            repo = "a/gated" if name in gated else "a/open"
            source = {"kind": "huggingface", "repo": repo, "path": name}
            case.add(name[:3], source, size=len(stored.data), sha256=stored.sha256)
        done = case.run("fetch", DOWNLOAD_TIMEOUT="6")
    assert done.code == 75, "two of the causes may pass"
    lines = [line for line in done.err.splitlines() if line.startswith("  checkpoints/")]
    assert len(lines) == 4
    for name, words in (
        ("f00", "does not exist in that repository (404)"),
        ("f01", "nothing arrived for 6 s"),
        ("f02", "nothing arrived for 6 s"),
        ("f03", "is gated: accept its licence"),
    ):
        assert any(name in line and words in line for line in lines), (name, lines)
    assert "4 of 20 files are missing, 16 are present" in done.err
    right = [
        n for n, s in files.items() if (p := case.folder / f"checkpoints/{n}").exists() and p.read_bytes() == s.data
    ]
    assert len(right) == 16
    assert len(list((case.folder / "checkpoints").iterdir())) == 16


@pytest.mark.parametrize(
    ("number", "told"),
    [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "the volume's quota is used up")],
    ids=["ENOSPC", "EDQUOT"],
)
def test_no_room_in_the_middle_of_a_file(
    web: Web, case: Case, monkeypatch: pytest.MonkeyPatch, number: int, told: str
) -> None:
    target = case.add("one", **locked(web))  # type: ignore[arg-type]
    real, written = os.pwrite, [0]

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        if written[0] > 4 * MIB:
            raise OSError(number, os.strerror(number))
        written[0] += len(data)
        return real(descriptor, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        done = case.run("fetch")
    assert done.code == 75, "who frees some space need not start it again"
    assert told in done.err
    assert re.search(r"\d+ bytes are still missing: free some space", done.err)
    assert not target.exists()

    before = web.sent("/file.bin")
    again = case.run("fetch")
    assert again.code == 0, again.err
    assert target.read_bytes() == DATA
    assert web.sent("/file.bin") - before < len(DATA) - 3 * MIB, "what had arrived is not fetched again"
