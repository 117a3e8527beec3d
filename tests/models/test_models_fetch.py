"""`hearmeman models fetch`: the real huggingface_hub against a Hub on loopback, and what becomes of files and tokens."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Literal

import pytest

from fakes.civitai import CivitAI, Version
from fakes.hub import PATH, REPO, Hub, Repo, safetensors, tiny_safetensors
from fakes.serving import Fault, Stored
from hearmeman.models.catalogue import read
from hearmeman.models.notes import Host
from hearmeman.models.plan import make_plan
from hearmeman.models.store import Store
from support.fetching import Case
from support.repository import ROOT
from support.waiting import wait_for

MIB = 1024**2
DEST = "checkpoints/tiny.safetensors"
TINY = tiny_safetensors()


def test_fetched_verified_and_never_asked_for_again(case: Case, hub: Hub) -> None:
    case.variables["MODEL_CATALOGUE"] = str(ROOT / "tests/smoke/catalogue.toml")
    case.variables["MODELS"] = "smoke"
    done = case.run("fetch")
    assert done.code == 0, done.err
    assert (case.folder / DEST).read_bytes() == TINY
    state = case.state()
    assert (state["state"], state["files_present"], state["bytes_done"]) == ("complete", 1, len(TINY))
    assert {request.host for request in hub.requests} == {"hub", "storage"}
    asked = len(hub.requests)
    again = case.run("fetch")
    assert again.code == 0, again.err
    assert len(hub.requests) == asked


def test_sixty_files_that_are_there_are_decided_in_under_a_second_without_a_request(case: Case, hub: Hub) -> None:
    files = {f"{n}.bin": Stored(hashlib.shake_128(b"%d" % n).digest(2000), lfs=n % 2 == 0) for n in range(59)}
    hub.repos["a/many"] = Repo(files)
    for name in files:
        case.add(name[:-4], {"kind": "huggingface", "repo": "a/many", "path": name})
    assert case.run("fetch").code == 0
    asked = len(hub.requests)
    process = case.start("fetch")
    # The processor's time, since this machine may have other things to do.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    process.communicate()
    assert status == 0
    assert len(hub.requests) == asked
    assert usage.ru_utime + usage.ru_stime < 1, "with Python's own start"


def test_the_token_goes_to_the_hub_alone_and_into_no_line(case: Case, hub: Hub) -> None:
    small = Stored(b"small\n", lfs=False)
    hub.repos[REPO] = Repo({**hub.repos[REPO].files, "s.txt": small}, gated=True)
    hub.token = "hf_very_secret"
    case.add("s", {"kind": "huggingface", "repo": REPO, "path": "s.txt"})
    process = case.start("fetch", HF_TOKEN="hf_very_secret")
    argv = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    out, err = process.communicate()
    assert process.returncode == 0, err
    asked = [request for request in hub.requests if "/resolve/" in request.path]
    assert asked
    assert all(request.headers.get("authorization") == "Bearer hf_very_secret" for request in asked)
    assert all("authorization" not in r.headers for r in hub.requests if r.host == "storage")
    assert all("very_secret" not in r.path for r in hub.requests)
    written = b"".join(p.read_bytes() for p in case.volume.rglob("*.json"))
    assert "very_secret" not in out + err
    assert b"very_secret" not in argv + written


@pytest.mark.parametrize(
    ("token", "words"),
    [("", "then set HF_TOKEN to that account's token"), ("hf_wrong", "the Hub rejects HF_TOKEN (401)")],
)
def test_gated(case: Case, hub: Hub, token: str, words: str) -> None:
    hub.repos[REPO] = Repo(hub.repos[REPO].files, gated=True)
    done = case.run("fetch", HF_TOKEN=token)
    assert done.code == 1
    assert words in done.err
    assert not (case.folder / DEST).exists()


@pytest.mark.parametrize(
    ("repos", "words"),
    [
        ({}, "the repository hearmeman/smoke does not exist"),
        ({REPO: Repo({})}, "does not exist in that repository"),
        ({REPO: Repo({PATH: Stored(TINY)}, commit="0" * 40)}, None),
        ({REPO: Repo({PATH: Stored(b"other")}, commit="0" * 40)}, "the file changed upstream, nothing here is corrupt"),
        ({REPO: Repo({PATH: Stored(bytes(len(TINY)))})}, "the file changed upstream, nothing here is corrupt"),
        ({REPO: Repo({PATH: Stored(b"short")})}, "the file changed upstream, nothing here is corrupt"),
        ({REPO: Repo({PATH: Stored(TINY, lfs=False)})}, None),
    ],
)
def test_each_failure_has_its_own_sentence(case: Case, hub: Hub, repos: dict[str, Repo], words: str | None) -> None:
    hub.repos = repos
    done = case.run("fetch")
    assert "Traceback" not in done.err
    if words is None:
        assert done.code == 0, done.err
        return
    assert done.code == 1
    assert words in done.err
    assert not (case.folder / DEST).exists()


def test_a_file_that_is_not_what_its_name_says(case: Case, hub: Hub) -> None:
    """No hash is known, and the source's own agrees; the format tells."""
    hub.repos["a/b"] = Repo({"x.safetensors": Stored(b"<html>" * 1000)})
    case.add("x", {"kind": "huggingface", "repo": "a/b", "path": "x.safetensors"}, "vae/x.safetensors")
    done = case.run("fetch")
    assert done.code == 3
    assert "x.safetensors is a web page, not weights" in done.err
    assert not (case.folder / "vae/x.safetensors").exists()


def test_a_json_file_may_be_called_json_by_its_storage(case: Case, hub: Hub) -> None:
    hub.content_type = "application/json"
    hub.repos["a/b"] = Repo({"tokenizer.json": Stored(b"[1, 2]" * 10_000)})
    source = {"kind": "huggingface", "repo": "a/b", "path": "tokenizer.json"}
    target = case.add("j", source, "text_encoders/tokenizer.json")
    assert case.run("fetch", MODELS="j").code == 0
    assert target.read_bytes() == b"[1, 2]" * 10_000
    assert "sent a message instead of the file" in case.run("fetch").err, "a safetensors file is never JSON"


def test_no_hub_at_all(case: Case) -> None:
    done = case.run("fetch", HF_ENDPOINT="http://127.0.0.1:9", DOWNLOAD_TIMEOUT="2")
    assert done.code == 75, "it may come back"
    assert "http://127.0.0.1:9 does not answer" in done.err


def test_an_unlocked_file_is_checked_against_what_the_hub_states(case: Case, hub: Hub) -> None:
    data = safetensors(100_000, b"unlocked")
    small = b'{"a": 1}\n' * 1000
    hub.repos["a/b"] = Repo({"m.safetensors": Stored(data), "c.json": Stored(small, lfs=False)})
    for name in ("m.safetensors", "c.json"):
        case.add(name[0], {"kind": "huggingface", "repo": "a/b", "path": name}, f"vae/{name}")
    hub.faults[Stored(data).sha256] = Fault("flip", times=1, at=200_000)
    hub.faults["c.json"] = Fault("flip", times=1, at=200)
    done = case.run("fetch")
    assert done.code == 0, done.err
    assert done.err.count("model.restarted") == 2
    assert (case.folder / "vae/m.safetensors").read_bytes() == data
    assert (case.folder / "vae/c.json").read_bytes() == small


@pytest.mark.alone
def test_a_large_file_comes_over_several_connections(case: Case, hub: Hub) -> None:
    data = hashlib.shake_128(b"large").digest(48 * MIB)
    hub.repos["a/b"] = Repo({"l.bin": Stored(data)})
    hub.rate = 8 * MIB
    case.add("large", {"kind": "huggingface", "repo": "a/b", "path": "l.bin"})
    began = time.monotonic()
    assert case.run("fetch").code == 0
    seconds = time.monotonic() - began
    assert (case.folder / "checkpoints/large.bin").read_bytes() == data
    ranges = [r.headers["range"] for r in hub.requests if r.host == "storage"]
    assert len(set(ranges)) > 4
    assert seconds < 4, "one connection alone takes 6 s"
    assert hub.sent(Stored(data).sha256) < len(data) * 1.2


def test_links_that_expire_are_asked_for_anew(case: Case, hub: Hub) -> None:
    data = hashlib.shake_128(b"expires").digest(24 * MIB)
    hub.repos["a/b"] = Repo({"e.bin": Stored(data)})
    hub.rate = 4 * MIB
    case.add("expires", {"kind": "huggingface", "repo": "a/b", "path": "e.bin"})

    def expire() -> None:
        # Both files' links have been given out, and the large one needs more than the two ranges under way.
        wait_for(lambda: hub.links >= 2, "both links")
        hub.valid_from = hub.links + 1

    timer = threading.Thread(target=expire)
    timer.start()
    done = case.run("fetch", DOWNLOAD_CONNECTIONS_PER_FILE="2")
    timer.join()
    assert done.code == 0, done.err
    assert "model.renewed" in done.err
    assert (case.folder / "checkpoints/expires.bin").read_bytes() == data


def test_a_snapshot_is_listed_once_and_fetched_whole(case: Case, hub: Hub) -> None:
    files = {
        "config.json": Stored(b"{}\n", lfs=False),
        "part/model-1.safetensors": Stored(safetensors(50_000, b"1")),
        "README.md": Stored(b"# no", lfs=False),
        ".gitattributes": Stored(b"*", lfs=False),
    }
    hub.repos["a/snap"] = Repo(files)
    case.add("snap", {"kind": "huggingface-snapshot", "repo": "a/snap"}, "vae/Snap")
    done = case.run("fetch")
    assert done.code == 0, done.err
    found = {str(p.relative_to(case.folder / "vae/Snap")) for p in (case.folder / "vae/Snap").rglob("*") if p.is_file()}
    assert found == {"config.json", "part/model-1.safetensors"}
    asked = len(hub.requests)
    assert case.run("fetch").code == 0
    assert len(hub.requests) == asked
    (case.folder / "vae/Snap/config.json").unlink()
    assert case.run("fetch").code == 0
    assert (case.folder / "vae/Snap/config.json").read_bytes() == b"{}\n"
    assert case.run("verify").code == 0


def test_a_snapshot_that_is_not_there_leaves_the_others_alone(case: Case) -> None:
    case.add("snap", {"kind": "huggingface-snapshot", "repo": "a/nothing"}, "vae/Nothing")
    done = case.run("fetch")
    assert done.code == 3
    assert "vae/Nothing: a/nothing@main: the repository a/nothing does not exist" in done.err
    assert (case.folder / DEST).exists()


def test_civitai_with_its_redirect_and_a_key_for_its_own_host(tmp_path: Path) -> None:
    model, other = safetensors(20_000, b"model"), safetensors(10_000, b"other")
    case = Case(tmp_path)
    versions = {7: Version({"m.safetensors": Stored(model), "o.safetensors": Stored(other)}, login=True)}
    with CivitAI(versions, key="ck_secret") as site:
        case.variables["CIVITAI_ENDPOINT"] = site.url
        source = {"kind": "civitai", "model": 1, "version": 7}
        case.add("first", source, "checkpoints/first.safetensors")
        case.add("named", {**source, "file": "o.safetensors"}, "checkpoints/named.safetensors")
        case.add("lost", {**source, "file": "x.safetensors"}, "checkpoints/lost.safetensors")
        case.add("gone", {**source, "version": 8}, "checkpoints/gone.safetensors")
        without = case.run("fetch")
        assert without.code == 1
        assert "wants a login: set CIVITAI_API_KEY" in without.err
        done = case.run("fetch", CIVITAI_API_KEY="ck_secret")
        wrong = case.run("fetch", CIVITAI_API_KEY="ck_wrong")
    assert done.code == 3
    assert (case.folder / "checkpoints/first.safetensors").read_bytes() == model
    assert (case.folder / "checkpoints/named.safetensors").read_bytes() == other
    assert "that version has no such file; its files are m.safetensors, o.safetensors" in done.err
    assert "civitai model 1 version 8: CivitAI has no version 8" in done.err
    assert wrong.code == 3
    stored = [request for request in site.requests if request.host == "storage"]
    assert stored
    assert all("authorization" not in request.headers for request in stored)
    assert all("ck_secret" not in request.path for request in site.requests)
    assert "ck_secret" not in done.err + done.out


def test_civitais_api_may_have_moved(tmp_path: Path) -> None:
    model = safetensors(2_000, b"moved")
    case = Case(tmp_path)
    with CivitAI({7: Version({"m.safetensors": Stored(model)}, login=True)}, key="ck_secret") as site:
        site.moved = True
        case.variables.update({"CIVITAI_ENDPOINT": site.url, "CIVITAI_API_KEY": "ck_secret"})
        source = {"kind": "civitai", "model": 1, "version": 7}
        target = case.add("first", source, "checkpoints/first.safetensors")
        done = case.run("fetch")
    assert done.code == 0, done.err
    assert target.read_bytes() == model
    assert any("/api/moved/" in request.path for request in site.requests)


@pytest.mark.parametrize("small", [False, True])
def test_a_revoked_token_does_not_cost_public_files(case: Case, hub: Hub, small: bool) -> None:
    hub.repos["a/b"] = Repo({"x.bin": Stored(b"x" * 5000, lfs=not small)})
    hub.repos["a/snap"] = Repo({"s.json": Stored(b"{}", lfs=False)})
    hub.repos["a/gated"] = Repo({"g.bin": Stored(b"g" * 5000)}, gated=True)
    case.add("x", {"kind": "huggingface", "repo": "a/b", "path": "x.bin"})
    case.add("snap", {"kind": "huggingface-snapshot", "repo": "a/snap"}, "vae/Snap")
    case.add("g", {"kind": "huggingface", "repo": "a/gated", "path": "g.bin"})
    done = case.run("fetch", HF_TOKEN="hf_revoked", DOWNLOAD_CONNECTIONS="1")
    assert done.code == 3, done.err
    assert "1 of 4 files are missing, 3 are present" in done.err
    assert re.search(r"checkpoints/g.bin: .* the Hub rejects HF_TOKEN \(401\)", done.err)
    assert done.err.count("token.refused variable=HF_TOKEN") == 1
    assert "hf_revoked" not in done.err


def test_the_hubs_ratelimit_header_is_waited_for(case: Case, hub: Hub) -> None:
    limit = {"RateLimit": '"resolvers";r=0;t=2', "RateLimit-Policy": '"fixed window";"resolvers";q=3000;w=300'}
    hub.faults["api"] = Fault("status", times=1, status=429, headers=limit)
    done = case.run("fetch", DOWNLOAD_TIMEOUT="30")
    assert done.code == 0, done.err
    assert "answered 429" in done.err
    assert "pause=3" in done.err, "a second more than it says, which was rounded"


@pytest.mark.parametrize("kind", ["html", "status"])
def test_a_listing_has_the_patience_of_a_file(case: Case, hub: Hub, kind: Literal["html", "status"]) -> None:
    hub.repos["a/snap"] = Repo({"s.json": Stored(b"{}", lfs=False)})
    case.add("snap", {"kind": "huggingface-snapshot", "repo": "a/snap"}, "vae/Snap")
    hub.faults["api"] = Fault(kind, times=3, status=500)
    done = case.run("fetch", DOWNLOAD_TIMEOUT="60", MODELS="snap")
    assert done.code == 0, done.err
    assert (case.folder / "vae/Snap/s.json").exists()
    assert "model.retrying file=vae/Snap" in done.err


def test_a_listing_that_stays_away_is_a_passing_cause_and_holds_nobody_up(case: Case, hub: Hub) -> None:
    case.add("snap", {"kind": "huggingface-snapshot", "repo": "a/snap"}, "vae/Snap")
    hub.repos["a/snap"] = Repo({"s.json": Stored(b"{}", lfs=False)})
    hub.broken_listings = True
    done = case.run("fetch", DOWNLOAD_TIMEOUT="6")
    assert done.code == 75, done.err
    assert (case.folder / DEST).exists()
    assert "vae/Snap: nothing arrived for 6 s" in done.err
    hub.broken_listings = False
    assert case.run("fetch").code == 0


def test_a_file_of_the_same_name_is_set_aside_and_not_lost(case: Case) -> None:
    target = case.folder / DEST
    target.parent.mkdir(parents=True)
    target.write_bytes(b"mine")
    assert case.run("fetch").code == 0
    assert target.read_bytes() == TINY
    assert (case.folder / ".hearmeman/replaced" / DEST).read_bytes() == b"mine"


def test_a_right_file_that_was_there_before_is_taken(case: Case, hub: Hub) -> None:
    target = case.folder / DEST
    target.parent.mkdir(parents=True)
    target.write_bytes(TINY)
    done = case.run("fetch")
    assert done.code == 0, done.err
    assert hub.requests == []


def test_what_the_image_has_baked_in_is_not_read_again(tmp_path: Path) -> None:
    catalogue = read(ROOT / "tests/smoke/catalogue.toml")
    baked, root = tmp_path / "baked", tmp_path / "models"
    for folder in (baked, root):
        (folder / DEST).parent.mkdir(parents=True)
    (baked / DEST).write_bytes(TINY)
    (root / DEST).symlink_to(baked / DEST)
    disk = Store(root, baked).look(catalogue, ["smoke-tiny"])
    assert [step.action for step in make_plan(catalogue, catalogue.models, disk, Host()).steps] == ["present"]
    disk = Store(root, tmp_path / "elsewhere").look(catalogue, ["smoke-tiny"])
    assert [step.action for step in make_plan(catalogue, catalogue.models, disk, Host()).steps] == ["verify"]


def test_verify_names_what_is_corrupt_and_fetch_mends_it(case: Case) -> None:
    case.run("fetch")
    assert case.run("verify").code == 0
    with (case.folder / DEST).open("r+b") as file:
        file.seek(2_000_000)
        file.write(b"\0\1\2\3")
    done = case.run("verify", "--json")
    assert done.code == 3
    assert "sha256" in json.loads(done.out)[DEST]
    assert case.run("fetch").code == 0
    assert (case.folder / DEST).read_bytes() == TINY


def test_dry_run_and_plan_fetch_nothing(case: Case, hub: Hub) -> None:
    for done in (case.run("fetch", DRY_RUN="true"), case.run("plan", "--json")):
        assert done.code == 0, done.err
        assert DEST in done.out
    assert hub.requests == []
    assert not case.folder.exists()


def test_all_that_is_told_is_told_in_json_too(case: Case) -> None:
    listed = json.loads(case.run("list", "--json").out)
    assert [(model["id"], model["asked_for"], model["bytes"]) for model in listed["models"]] == [
        ("tiny", True, len(TINY))
    ]
    fetched = json.loads(case.run("fetch", "--json").out)
    assert (fetched["state"], fetched["files"]["tiny"]["state"]) == ("complete", "present")
    assert json.loads(case.run("plan", "--json").out)["steps"][0]["action"] == "present"
    assert json.loads(case.run("verify", "--json").out) == {DEST: "ok"}


def test_an_unknown_model_is_a_usage_error(case: Case) -> None:
    done = case.run("fetch", MODELS="tinny")
    assert done.code == 2
    assert "did you mean tiny?" in done.err


def test_what_cannot_fit_is_refused_before_the_first_byte(case: Case, hub: Hub) -> None:
    (case.volume / "big").write_bytes(bytes(1_000_000))
    done = case.run("fetch", VOLUME_SIZE_GB="0.54")
    assert done.code == 1
    assert "the volume's quota (VOLUME_SIZE_GB=0.54) leaves 0.54 GB free" in done.err
    assert hub.requests == []


def test_a_real_disk_that_is_too_small(case: Case, hub: Hub) -> None:
    inside = case.volume / "small"
    inside.mkdir()
    before = ("bwrap", "--dev-bind", "/", "/", "--size", str(8 * MIB), "--tmpfs", str(inside), "--")
    process = case.start("fetch", before=before, MODELS_DIR=str(inside / "models"))
    _, err = process.communicate()
    assert process.returncode == 1
    assert "has 0.01 GB free; 0.00 GB would be fetched and 0.54 GB must stay free" in err
    assert hub.requests == []


def test_a_log_gets_a_line_for_each_five_percent_and_the_state_file_moves(case: Case, hub: Hub) -> None:
    data = hashlib.shake_128(b"log").digest(16 * MIB)
    hub.repos["a/b"] = Repo({"p.bin": Stored(data)})
    hub.rate = 2 * MIB
    case.add("progress", {"kind": "huggingface", "repo": "a/b", "path": "p.bin"})
    process = case.start("fetch", DOWNLOAD_CONNECTIONS_PER_FILE="1")
    seen = []
    while process.poll() is None:
        time.sleep(0.3)
        if (case.volume / ".hearmeman/local/models.json").exists():
            seen.append(case.state()["bytes_done"])
    _, err = process.communicate()
    assert process.returncode == 0, err
    percents = [int(p) for p in re.findall(r"models.progress percent=(\d+)", err)]
    assert 4 <= len(percents) <= 22
    assert percents == sorted(set(percents))
    assert re.search(r"mb_per_s=\d+(\.\d+)? left=\d+s files=\d/2", err)
    assert seen == sorted(seen)
    assert len(set(seen)) > 4
    assert case.state()["bytes_done"] == case.state()["bytes_total"] == len(data) + len(TINY)


def test_a_person_sees_bars(case: Case, hub: Hub) -> None:
    hub.rate = 4 * MIB
    ours, theirs = pty.openpty()
    environ = {**os.environ, **case.environ(), "PYTHONPATH": str(ROOT / "python"), "TERM": "xterm", "COLUMNS": "120"}
    command = [sys.executable, "-m", "hearmeman", "models", "fetch"]
    process = subprocess.Popen(command, env=environ, stderr=theirs, stdout=theirs, stdin=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:
            break
    os.close(ours)
    assert process.wait() == 0
    text = shown.decode(errors="replace")
    assert "tiny.safetensors" in text
    assert "1 of 1 files" in text
    assert "MB/s" in text
    assert "models.progress" not in text


def test_prune_takes_what_was_fetched_and_is_not_needed_and_nothing_else(case: Case, hub: Hub) -> None:
    hub.repos["a/b"] = Repo({f"{n}.bin": Stored(b"%d" % n * 100_000) for n in range(3)})
    for n in range(3):
        case.add(f"n{n}", {"kind": "huggingface", "repo": "a/b", "path": f"{n}.bin"})
    own = case.folder / "checkpoints/own.bin"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    (case.folder / "checkpoints/n1.bin").write_bytes(b"1" * 100_000)
    assert case.run("fetch").code == 0
    (case.folder / "checkpoints/n2.bin").write_bytes(b"changed")
    shown = case.run("prune", "--json", MODELS="tiny")
    assert {row["to"]: row["kept"] for row in json.loads(shown.out)["surplus"]} == {
        "checkpoints/n0.bin": "",
        "checkpoints/n2.bin": "changed since it was fetched",
    }
    assert (case.folder / "checkpoints/n0.bin").exists(), "nothing goes without --yes"
    assert case.run("prune", "--yes", MODELS="tiny").code == 0
    left = {p.name for p in (case.folder / "checkpoints").iterdir()}
    assert left == {"own.bin", "n1.bin", "n2.bin", "tiny.safetensors"}


def test_lock_writes_what_the_sources_state_and_names_what_moved(case: Case, hub: Hub) -> None:
    small = Stored(b"small\n", lfs=False)
    hub.repos["a/b"] = Repo({"m.bin": Stored(b"first" * 1000), "s.txt": small}, commit="a" * 40)
    case.add("m", {"kind": "huggingface", "repo": "a/b", "path": "m.bin"})
    case.add("s", {"kind": "huggingface-snapshot", "repo": "a/b"}, "vae/S")
    done = case.run("lock", "--json")
    assert done.code == 0, done.err
    assert {name: row["status"] for name, row in json.loads(done.out)["files"].items()} == {
        "tiny": "same",
        "m": "new",
        "s": "new",
    }
    lock = json.loads((case.volume / "catalogue.lock.json").read_text())
    assert lock["files"]["m"] == {
        "revision": "a" * 40,
        "size": 5000,
        "sha256": Stored(b"first" * 1000).sha256,
        "blob": None,
    }
    assert [part["path"] for part in lock["snapshots"]["s"]["parts"]] == ["m.bin", "s.txt"]

    hub.repos["a/b"] = Repo({"m.bin": Stored(b"secon" * 1000), "s.txt": small}, commit="b" * 40)
    moved = case.run("lock", "--check")
    assert moved.code == 3
    assert "m moved upstream" in moved.err
    refused = case.run("fetch")
    assert refused.code == 3
    assert "that revision no longer exists" in refused.err
    assert case.run("lock").code == 0
    assert case.run("fetch").code == 0
    assert (case.folder / "checkpoints/m.bin").read_bytes() == b"secon" * 1000
    assert (case.folder / "vae/S/s.txt").read_bytes() == b"small\n"
