"""Xet: the real hf_xet in a process of its own against storage on loopback, and plain HTTP when it fails."""

from __future__ import annotations

import contextlib
import hashlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.hub import Hub, Repo
from fakes.serving import Fault, Stored
from hearmeman.models import xet
from hearmeman.state_file import read_json
from support.fetching import Case
from support.memory import children
from support.waiting import wait_for

MIB = 1024**2
STORED = Stored(hashlib.shake_128(b"xet").digest(40 * MIB + 4321))


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub({"a/x": Repo({"x.bin": STORED}, xet=True)}, token="hf_xet_secret") as running:
        yield running


@pytest.fixture
def case(tmp_path: Path, hub: Hub) -> Case:
    made = Case(tmp_path, {"HF_ENDPOINT": hub.url, "DOWNLOAD_TIMEOUT": "20"})
    source = {"kind": "huggingface", "repo": "a/x", "path": "x.bin"}
    made.add("x", source, size=len(STORED.data), sha256=STORED.sha256)
    return made


def test_a_large_file_comes_through_xet(case: Case, hub: Hub) -> None:
    # Where the client would keep its log and its cache cannot be written.
    process = case.start("fetch", HF_TOKEN="hf_xet_secret", HF_HOME="/proc/nowhere", HOME="/proc/nowhere")
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert "model.xet_failed" not in err
    assert (case.folder / "checkpoints/x.bin").read_bytes() == STORED.data
    assert hub.sent("/xorbs/") >= len(STORED.data)
    assert not [request for request in hub.requests if request.host == "storage"]
    for request in hub.requests:
        if request.host == "xet":
            assert "hf_xet_secret" not in str(request.headers)


def test_xet_switched_off(case: Case, hub: Hub) -> None:
    assert case.run("fetch", DOWNLOAD_XET="false").code == 0
    assert not [request for request in hub.requests if request.host == "xet"]
    assert (case.folder / "checkpoints/x.bin").read_bytes() == STORED.data


def test_when_xet_stands_still_plain_http_goes_on(case: Case, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xet, "STALL_SECONDS", 1.5)
    hub.faults[f"xet-{STORED.sha256}"] = Fault("stall", at=10 * MIB)
    done = case.run("fetch")
    assert done.code == 0, done.err
    assert done.err.count("model.xet_failed") == xet.TRIES
    assert "nothing arrived for 1.5 s" in done.err
    assert (case.folder / "checkpoints/x.bin").read_bytes() == STORED.data
    assert hub.sent(f"/repos/{STORED.sha256}") > 0


def test_when_xet_is_broken_plain_http_goes_on(case: Case, hub: Hub) -> None:
    hub.faults[f"xet-{STORED.sha256}"] = Fault("status", status=404)
    done = case.run("fetch")
    assert done.code == 0, done.err
    assert "model.xet_failed" in done.err
    assert (case.folder / "checkpoints/x.bin").read_bytes() == STORED.data


def test_a_wrong_bit_from_xet_is_found(case: Case, hub: Hub) -> None:
    hub.faults[f"xet-{STORED.sha256}"] = Fault("flip", times=1, at=3 * MIB)
    done = case.run("fetch")
    assert done.code == 0, done.err
    assert (case.folder / "checkpoints/x.bin").read_bytes() == STORED.data


def test_killed_it_goes_on_where_it_was_and_leaves_no_process(case: Case, hub: Hub) -> None:
    hub.rate = MIB
    process = case.start("fetch")
    journal = case.folder / ".hearmeman/staging/x/.journal.json"
    wait_for(lambda: read_json(journal).get("done", 0) > 0, "something to be noted")
    found = children(process.pid)
    assert len(found) == 1, "the Xet process"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_for(lambda: not _runs(found[0]), "its end")
    hub.rate = 0
    done = case.run("fetch")
    assert done.code == 0, done.err
    assert "model.resumed" in done.err
    asked = [r.headers["range"] for r in hub.requests if r.host == "xet" and "reconstructions" in r.path]
    assert any(not text.startswith("bytes=0-") for text in asked), asked
    assert (case.folder / "checkpoints/x.bin").read_bytes() == STORED.data


def _runs(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_the_process_is_told_its_order_on_standard_input_alone(case: Case, hub: Hub) -> None:
    """Nothing secret is in its command line."""
    hub.rate = 8 * MIB
    process = case.start("fetch", HF_TOKEN="hf_xet_secret")
    shown = ""

    def seen() -> bool:
        nonlocal shown
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):  # It has just ended.
                shown += file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return "models/xet_process.py" in shown

    wait_for(seen, "the process")
    process.kill()
    process.communicate()
    assert "hf_xet_secret" not in shown
