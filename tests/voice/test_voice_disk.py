"""A full disk is an error that says so; nothing half is left, and the server goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from support.voice import CLIENT, tone, voice_process

ROOM = 200_000
"""Bytes of the disk: four seconds of sound."""


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The XTTS API with next to no room for voices and for files."""
    folder = tmp_path_factory.mktemp("full")
    within = ["bwrap", "--die-with-parent", "--dev-bind", "/", "/"]
    for name in ("voices", "output"):
        (folder / name).mkdir()
        within += ["--size", str(ROOM), "--tmpfs", str(folder / name)]
    with voice_process("xtts", folder, within) as url:
        yield url


def upload(url: str, name: str, clip: bytes) -> httpx2.Response:
    """Upload a voice."""
    return CLIENT.post(f"{url}/voices", files={"voice_file": ("v.wav", clip)}, data={"voice_name": name})


def test_an_upload_on_a_full_disk_is_refused_and_leaves_room_for_a_smaller_one(full: str, tmp_path: Path) -> None:
    for seconds, status in ((9.0, 507), (2.0, 201)):
        clip = tone(tmp_path / "clip.wav", seconds).read_bytes()
        answer = upload(full, "ann", clip)
        assert answer.status_code == status, answer.text
        if status == 507:
            assert answer.json()["error"]["code"] == "disk_full"
            assert answer.headers["x-should-retry"] == "false"
            assert "ann" not in CLIENT.get(f"{full}/speakers_list").json()
    assert "ann" in CLIENT.get(f"{full}/speakers_list").json()
    assert CLIENT.delete(f"{full}/voices/ann").status_code == 200


def test_a_file_on_a_full_disk_is_refused_and_leaves_room_for_a_smaller_one(full: str) -> None:
    long = "The quick brown fox jumps over the lazy dog, and then it sleeps in the warm sun until the evening. " * 3
    for text, status in ((long, 507), ("Yes, please.", 200)):
        body = {"text": text, "speaker_wav": "female", "language": "en", "file_name_or_path": "line.wav"}
        answer = CLIENT.post(f"{full}/tts_to_file", json=body)
        assert answer.status_code == status, answer.text
        if status == 507:
            assert answer.json()["error"]["code"] == "disk_full"
    assert answer.json()["output_path"].endswith("/line.wav")
    assert CLIENT.get(f"{full}/health").json()["status"] == "ready"


def test_a_voice_is_deleted_and_the_upload_tried_again(full: str, tmp_path: Path) -> None:
    clip = tone(tmp_path / "clip.wav", 3.0).read_bytes()
    assert upload(full, "one", clip).status_code == 201
    answer = upload(full, "two", clip)
    assert answer.status_code == 507
    assert "delete files or voices, then try again" in answer.json()["error"]["message"]
    assert CLIENT.delete(f"{full}/voices/one").status_code == 200
    assert upload(full, "two", clip).status_code == 201
    assert CLIENT.delete(f"{full}/voices/two").status_code == 200


def test_a_file_is_deleted_and_the_next_one_tried_again(full: str) -> None:
    def say() -> httpx2.Response:
        body = {"text": "Yes, please.", "speaker_wav": "female", "language": "en", "file_name_or_path": "again.wav"}
        return CLIENT.post(f"{full}/tts_to_file", json=body)

    answers = [say() for _ in range(9)]
    assert answers[-1].status_code == 507, answers[-1].text
    assert "delete files or voices, then try again" in answers[-1].json()["error"]["message"]
    # Its disk is there for its own processes alone.
    root = Path(f"/proc/{CLIENT.get(f'{full}/health').json()['pid']}/root")
    for answer in answers:
        if answer.status_code == 200:
            (root / answer.json()["output_path"].removeprefix("/")).unlink()
    assert say().status_code == 200


def test_a_voice_that_is_not_wholly_kept_is_not_there(full: str, tmp_path: Path) -> None:
    """One of these recordings fits and what is noted of it does not; of one that fits, no room is left to note that it is gone."""
    statuses = []
    for step in range(24):
        clip = tone(tmp_path / "clip.wav", 4.3 - step * 0.02).read_bytes()
        answer = CLIENT.post(
            f"{full}/voices", files={"voice_file": ("v.wav", clip)}, data={"voice_name": "eve", "language": "de"}
        )
        there = "eve" in CLIENT.get(f"{full}/speakers_list").json()
        statuses.append(answer.status_code)
        assert there == (answer.status_code == 201), answer.text
        if there:
            assert CLIENT.delete(f"{full}/voices/eve").status_code == 200
    assert set(statuses) == {201, 507}
