"""The stand-in ComfyUI: it keeps the real one's promises that our code and tests rely on."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.comfyui import ComfyUI, comfyui, command
from support.ports import free_port
from support.waiting import PATIENCE, wait_for

WRITE_SECONDS = 0.4


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyUI]:
    """One stand-in for the whole file."""
    with comfyui(tmp_path_factory.mktemp("comfyui"), WRITE_SECONDS) as running:
        yield running


def _get(server: ComfyUI, path: str) -> Any:
    with urllib.request.urlopen(server.url + path, timeout=PATIENCE) as reply:
        return json.load(reply)


def _post(server: ComfyUI, path: str, body: object) -> Any:
    request = urllib.request.Request(server.url + path, json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
        return json.loads(reply.read() or b"null")


def image(color: int, prefix: str = "t/image", count: int = 1) -> dict[str, Any]:
    """The smallest prompt that makes pictures."""
    size = {"width": 8, "height": 8, "batch_size": count, "color": color}
    return {
        "1": {"class_type": "EmptyImage", "inputs": size},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}},
    }


def _finish(server: ComfyUI, prompt: object) -> dict[str, Any]:
    return _ended(server, _post(server, "/prompt", {"prompt": prompt})["prompt_id"])


def _ended(server: ComfyUI, prompt_id: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def has_ended() -> bool:
        found.update(_get(server, f"/history/{prompt_id}").get(prompt_id) or {})
        return found != {}

    wait_for(has_ended, "the prompt to end")
    return found


def _pixels(png: bytes) -> bytes:
    at, data = 8, b""
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert struct.unpack(">I", png[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + body)
        data += body if kind == b"IDAT" else b""
        at += 12 + length
    return zlib.decompress(data)


def test_two_prompts_give_two_different_files(server: ComfyUI) -> None:
    files = [
        server.output / "t" / _finish(server, image(color))["outputs"]["2"]["images"][0]["filename"]
        for color in (0x112233, 0x445566)
    ]
    assert files[0] != files[1]
    assert _pixels(files[0].read_bytes())[1:4] == b"\x11\x22\x33"
    assert _pixels(files[1].read_bytes())[1:4] == b"\x44\x55\x66"


def test_sound_decodes(server: ComfyUI) -> None:
    prompt = {
        "1": {"class_type": "EmptyAudio", "inputs": {"duration": 0.5, "sample_rate": 22050, "channels": 1}},
        "2": {"class_type": "SaveAudio", "inputs": {"audio": ["1", 0], "filename_prefix": "t/audio"}},
    }
    name = _finish(server, prompt)["outputs"]["2"]["audio"][0]["filename"]
    subprocess.run(["flac", "--test", "--silent", str(server.output / "t" / name)], check=True)


def test_a_file_is_seen_half_written(tmp_path: Path) -> None:
    with comfyui(tmp_path, write_seconds=4) as slow:
        prompt_id = _post(slow, "/prompt", {"prompt": image(7, "half/image")})["prompt_id"]
        sizes: list[int] = []

        def has_grown() -> bool:
            sizes.extend(file.stat().st_size for file in (slow.output / "half").glob("*.png"))
            return len(set(sizes)) >= 4

        wait_for(has_grown, "four sizes")
        assert sizes == sorted(sizes)
        assert _ended(slow, prompt_id)["status"]["completed"] is True


def test_another_class_is_refused_by_name_as_the_real_one_does(server: ComfyUI) -> None:
    prompt = {"9": {"class_type": "KSampler", "inputs": {}}}
    with pytest.raises(urllib.error.HTTPError) as caught:
        _post(server, "/prompt", {"prompt": prompt})
    error = json.load(caught.value)["error"]
    assert caught.value.code == 400
    assert error["type"] == "missing_node_type"
    assert error["extra_info"]["class_type"] == "KSampler"


def test_a_waiting_prompt_can_be_deleted_and_a_running_one_interrupted(server: ComfyUI) -> None:
    running = _post(server, "/prompt", {"prompt": image(1, "q/long", count=500)})["prompt_id"]
    waiting = _post(server, "/prompt", {"prompt": image(2, "q/never")})["prompt_id"]
    assert [row[1] for row in _get(server, "/queue")["queue_pending"]] == [waiting]
    _post(server, "/queue", {"delete": [waiting]})
    _post(server, "/interrupt", {})
    assert _ended(server, running)["status"]["completed"] is False
    assert _get(server, f"/history/{waiting}") == {}
    assert not list((server.output / "q").glob("never*"))


def test_view_does_not_leave_its_folder(server: ComfyUI) -> None:
    (server.base / "secret.txt").write_text("no")
    for query in ("filename=../secret.txt", "filename=secret.txt&subfolder=..", "filename=/etc/passwd"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            _get(server, f"/view?{query}")
        assert caught.value.code in (400, 403, 404)


def test_system_stats_name_the_pinned_version(server: ComfyUI) -> None:
    system = _get(server, "/system_stats")["system"]
    assert system["comfyui_version"].startswith("0.33")
    assert "--cpu" in system["argv"]


@pytest.mark.parametrize("flag", ["--medvram", "--normalvram", "--lowvrm"])
def test_a_flag_that_the_real_one_lacks_ends_it(flag: str, tmp_path: Path) -> None:
    done = subprocess.run(command(tmp_path, free_port(), flag), capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2
    assert flag in done.stderr


def test_sigterm_ends_it_at_once(tmp_path: Path) -> None:
    with comfyui(tmp_path) as running:
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(PATIENCE) == -signal.SIGTERM
