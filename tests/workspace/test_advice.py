"""What `hearmeman workspace` advises, followed: the save, the object or the command that it names."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.r2 import R2
from hearmeman.cli import main
from hearmeman.workspace.save import IN_MEMORY
from support.ctrl_c import ctrl_c
from support.waiting import PATIENCE

from .test_workspace import VolumeOfPod

SAVE = "outputs/workspace/saves/{:08}.json"


@pytest.fixture
def r2() -> Iterator[R2]:
    with R2() as server:
        yield server


@pytest.fixture
def pods(r2: R2) -> Iterator[tuple[VolumeOfPod, VolumeOfPod]]:
    """One pod with two saves, and one with nothing yet; every user of the pod can enter their folder."""
    with tempfile.TemporaryDirectory(prefix="volumes-") as folder:
        Path(folder).chmod(0o755)
        first = VolumeOfPod(Path(folder), r2, "one")
        first.write(user__a_json="a")
        first.run("save")
        first.write(user__b_json="b")
        first.run("save")
        yield first, VolumeOfPod(Path(folder), r2, "two")


def test_an_earlier_save_is_restored(r2: R2, pods: tuple[VolumeOfPod, VolumeOfPod]) -> None:
    r2.lay(SAVE.format(2), b"half a li")
    assert "restore an earlier one with --from" in pods[1].run("restore", "--from", "2", code=1).stderr
    pods[1].run("restore", "--from", "1")
    assert pods[1].files() == {"user/a.json": b"a"}


def test_a_save_of_foreign_hands_is_passed_over(r2: R2, pods: tuple[VolumeOfPod, VolumeOfPod]) -> None:
    evil = json.loads(r2.contents()[SAVE.format(2)])
    evil["files"] = {"user/../../escaped": next(iter(evil["files"].values()))}
    r2.lay(SAVE.format(2), json.dumps(evil).encode())
    assert "and restore an earlier one with --from" in pods[1].run("restore", "--from", "2", code=1).stderr
    pods[1].run("restore", "--from", "1")
    assert pods[1].files() == {"user/a.json": b"a"}


def test_a_save_of_another_version_is_left_and_an_earlier_one_restored(
    r2: R2, pods: tuple[VolumeOfPod, VolumeOfPod]
) -> None:
    later = json.loads(r2.contents()[SAVE.format(2)])
    r2.lay(SAVE.format(2), json.dumps({**later, "version": 99}).encode())
    said = pods[1].run("restore", code=1).stderr
    assert "(format 99): use that version, or restore an earlier one with --from" in said
    pods[1].run("restore", "--from", "1")
    assert pods[1].files() == {"user/a.json": b"a"}


def test_the_list_names_the_saves(pods: tuple[VolumeOfPod, VolumeOfPod]) -> None:
    [command] = re.findall(r"see `hearmeman workspace (list)`", pods[1].run("restore", "--from", "9", code=1).stderr)
    numbers = [str(row["number"]) for row in pods[1].json(command)["saves"]]  # type: ignore[attr-defined]
    pods[1].run("restore", "--from", numbers[-1])
    assert len(pods[1].files()) == 2


def test_what_is_missing_in_the_bucket_is_taken_from_an_earlier_save(
    r2: R2, pods: tuple[VolumeOfPod, VolumeOfPod]
) -> None:
    r2.objects.pop(next(key for key, content in r2.contents().items() if content == b"b"))
    assert "restore an earlier save with --from" in pods[1].run("restore", code=3).stderr
    pods[1].run("restore", "--from", "1")
    assert pods[1].files() == {"user/a.json": b"a"}


def test_an_object_of_other_content_is_deleted_and_saved_again(r2: R2, pods: tuple[VolumeOfPod, VolumeOfPod]) -> None:
    key = next(key for key, content in r2.contents().items() if content == b"a")
    r2.lay(key, b"x")
    [named] = re.findall(
        r"the content of (\S+) does not match its name: delete that object, and save again",
        pods[1].run("restore", code=3).stderr,
    )
    r2.objects.pop(named)
    pods[0].run("save")
    pods[1].run("restore")
    assert pods[1].files() == pods[0].files()


def test_space_is_freed_for_a_restore(pods: tuple[VolumeOfPod, VolumeOfPod]) -> None:
    """On a filesystem of its own, which a file fills."""
    place = str(pods[1].volume)
    script = (
        'cp -a "$0/." "$1"; cd "$1"; shift; fallocate -l 60M full; "$@" && exit 9; rm full; "$@" && cat ComfyUI/user/*'
    )
    with tempfile.TemporaryDirectory(prefix="copy-", dir="/dev/shm") as copy:
        shutil.copytree(place, copy, dirs_exist_ok=True, copy_function=shutil.copy2)
        inside = ["bwrap", "--dev-bind", "/", "/", *(["--cap-add", "ALL"] if os.geteuid() == 0 else [])]
        inside += ["--perms", "0755", "--size", str(300 << 20), "--tmpfs", place]
        done = pods[1].run("restore", before=(*inside, "--", "sh", "-c", script, copy, place))
    assert "nothing was fetched; free some space, or use a larger volume" in done.stderr
    assert done.stdout.endswith("ab")


def test_nodes_are_installed_after_a_restore(pods: tuple[VolumeOfPod, VolumeOfPod]) -> None:
    said = pods[1].run("install", code=1, command="nodes").stderr
    [command] = re.findall(r"run `hearmeman workspace (restore)` first", said)
    pods[1].run(command)
    pods[1].run("install", command="nodes")


@pytest.mark.parametrize(
    ("words", "operation", "left"),
    [
        ("save", "put_object", "the previous save still counts; run the same command again to send the rest"),
        ("restore", "get_object", "restored files are kept; run the same command again to continue"),
    ],
)
def test_after_ctrl_c_the_same_command_does_the_rest(
    r2: R2,
    pods: tuple[VolumeOfPod, VolumeOfPod],
    capsys: pytest.CaptureFixture[str],
    words: str,
    operation: str,
    left: str,
) -> None:
    one, other = pods
    one.write(user__c_json="c", user__d_json="d")
    if words == "restore":
        one.run("save")
    begun, let = threading.Event(), threading.Event()

    def hold(asked: str, key: str) -> None:
        if asked == operation and "/files/" in key:
            begun.set()
            let.wait(PATIENCE)

    r2.before = hold
    environ = (one if words == "save" else other).environ
    with ctrl_c(begun.is_set, let.set):
        assert main(["workspace", words], environ) == 130
    assert left in capsys.readouterr().err
    if words == "save":
        assert SAVE.format(3) not in r2.contents()
    assert main(["workspace", words], environ) == 0
    if words == "save":
        other.run("restore")
    assert other.files() == one.files()


def test_a_file_that_changes_while_it_is_sent_is_named_and_comes_with_the_next_save(
    r2: R2, pods: tuple[VolumeOfPod, VolumeOfPod]
) -> None:
    one, other = pods
    one.write(user__c_json="c")
    film = one.put("input/film.mp4", bytes(IN_MEMORY + 1))

    def grow(operation: str, key: str) -> None:
        if operation == "put_object" and "/files/" in key:
            with film.open("r+b") as file:
                file.seek(IN_MEMORY - 1)
                file.write(b"more")

    r2.before = grow
    assert "input/film.mp4: it is being written to" in one.run("save", code=3).stderr
    other.run("restore")
    assert (other.comfyui / "user/c.json").exists(), "the others are saved"
    r2.before = lambda operation, key: None
    one.run("save")
    other.run("restore")
    assert other.files() == one.files()


def test_what_arrived_damaged_is_sent_by_the_same_command(r2: R2, pods: tuple[VolumeOfPod, VolumeOfPod]) -> None:
    one, other = pods
    one.write(user__c_json="c")
    r2.fail(400, "BadDigest", operation="put_object")
    assert "other bytes arrived than were sent: run the same command again" in one.run("save", code=1).stderr
    one.run("save")
    other.run("restore")
    assert other.files() == one.files()
