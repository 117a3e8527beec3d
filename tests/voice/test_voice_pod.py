"""The real image with both voice APIs on the small engine: behind the gate, under ComfyUI's user, with the pod's commands."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import unicodedata
import urllib.error
import urllib.request
import wave
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from hearmeman.users import COMFYUI
from hearmeman_build.build import build_image, prefetch_tier
from support.pod import Pod
from support.ports import free_port
from support.repository import ROOT

TOKEN = "the-token-of-the-voices"
NAMES = ("COMFYUI", "COMFYUI_INNER", "STATUS", "XTTS", "XTTS_INNER", "CHATTERBOX", "CHATTERBOX_INNER")
APIS = ("XTTS", "CHATTERBOX")


class VoicePod(Pod):
    """A pod of smoke-voice; `ports` are what it is reached at."""

    def __init__(self, folder: Path) -> None:
        prefetch_tier("smoke-voice")
        super().__init__(build_image("smoke-voice"), folder)
        self.ports = {name: free_port() for name in NAMES}

    def url(self, name: str, path: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}{path}"


def ask(url: str, body: Any = None, token: str = TOKEN) -> tuple[int, bytes, Message]:
    """GET, or POST of JSON: status, body, headers."""
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers
    except OSError:
        return 0, b"", Message()


def seconds(sound: bytes) -> float:
    """How long a WAV is."""
    with wave.open(io.BytesIO(sound)) as file:
        return float(file.getnframes() / file.getframerate())


def inside(pod: Pod, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the pod."""
    given = [f"{name}={value}" for name, value in environ.items()]
    return subprocess.run(pod.inside("env", *given, *words), capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VoicePod]:
    folder = tmp_path_factory.mktemp("voices") / "volume"
    folder.mkdir(mode=0o755)
    # Whoever imports from the volume ends here.
    (folder / "numpy.py").write_text("raise SystemExit('imported from the volume')\n")
    made = VoicePod(folder)
    made.start(
        {
            **{f"{name}_PORT": str(port) for name, port in made.ports.items()},
            **{f"{name}_HOST": "127.0.0.1" for name in ("COMFYUI", "STATUS")},
            "ACCESS_TOKEN": TOKEN,
            "ENABLE_XTTS": "true",
            "ENABLE_CHATTERBOX": "true",
            "HF_ENDPOINT": "http://127.0.0.1:9",
            "HF_TOKEN": "hf_planted-secret",
            "MODELS": "",
        }
    )
    try:
        for name in APIS:
            made.wait_for(lambda name=name: ask(made.url(name, "/ready"))[0] == 200, f"{name} is ready")  # type: ignore[misc]
        yield made
    finally:
        made.stop()


def test_the_plan_starts_both_as_comfyuis_user(pod: VoicePod) -> None:
    assert "NOT WORKING" not in pod.log()
    for name in ("xtts", "chatterbox"):
        assert f"process    {name}: as comfyui" in pod.log()
        keep = json.loads((Path(f"/proc/{pod.init}/root/run/hearmeman/keep") / f"{name}.json").read_text())
        status = inside(pod, "cat", f"/proc/{keep['pid']}/status").stdout
        if os.geteuid() == 0:
            fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
            assert set(fields["Uid"].split()) == {str(COMFYUI.uid)}
            assert int(fields["CapBnd"].strip(), 16) == 0
        given = inside(pod, "cat", f"/proc/{keep['pid']}/environ").stdout
        assert TOKEN not in given
        assert "hf_planted-secret" not in given


@pytest.mark.parametrize("name", APIS)
def test_a_token_opens_the_gate_as_openais_client_sends_it(pod: VoicePod, name: str) -> None:
    speech = {"model": "tts-1", "input": "The pod speaks.", "voice": "alloy", "response_format": "wav"}
    refused, text, _ = ask(pod.url(name, "/v1/audio/speech"), speech, token="")
    assert (refused, text[:4] == b"RIFF") == (401, False)
    assert ask(pod.url(name, "/v1/audio/speech"), speech, token="another-token-1")[0] == 401
    status, sound, headers = ask(pod.url(name, "/v1/audio/speech"), speech)
    assert (status, headers["Content-Type"]) == (200, "audio/wav")
    assert 0.5 < seconds(sound) < 10


def test_what_others_made_is_shipped_with_their_licences(pod: VoicePod) -> None:
    [folder] = (pod.root / "opt/env/voice").rglob("hibari_tts-*.dist-info/licenses")
    assert "Apache License" in (folder / "LICENSE").read_text()
    assert (folder / "NOTICE").read_text().strip()


def test_the_engines_without_weights_speak_in_their_environment_alone(pod: VoicePod) -> None:
    script = pod.volume / "late.py"
    shutil.copy(ROOT / "tests/late/small_voice.py", script)
    command = pod.command("/opt/env/voice/bin/python", "-P", "/workspace/late.py", variables={"HOME": "/tmp"})
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[::2] == ["hibari", "flite", "espeak"]
    assert all(re.fullmatch(r"\d+\.\d+[\w.]*", version) for version in done.stdout.split()[1::2])


def test_another_engine_serves_an_api_of_its_own_as_the_page_says(pod: VoicePod) -> None:
    [command] = commands("an engine of its own")
    port = free_port()
    words = shlex.split(command.replace("8021", str(port)))
    with subprocess.Popen(pod.inside("env", *words), stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT) as server:
        try:
            url = f"http://127.0.0.1:{port}"
            pod.wait_for(lambda: ask(f"{url}/ready")[0] == 200, "flite is ready")
            listed = json.loads(ask(f"{url}/speakers_list")[1])
            assert listed == ["rms", "slt", "awb"]
            sounds = {
                voice: ask(f"{url}/tts_to_audio/", {"text": "Good evening.", "speaker_wav": voice})[1]
                for voice in listed
            }
            assert all(0.3 < seconds(sound) < 5 for sound in sounds.values()) and len(set(sounds.values())) == 3
        finally:
            server.terminate()


def test_speaking_leaves_nothing_in_the_users_home(pod: VoicePod) -> None:
    """onnxruntime 1.27 and later keep what they report there."""
    ask(pod.url("XTTS", "/v1/audio/speech"), {"model": "tts-1", "input": "Nothing is kept.", "voice": "nova"})
    home = pod.volume / ".hearmeman/comfyui/home"
    assert home.is_dir()
    assert [str(path) for path in home.rglob("*")] == []


def test_what_is_saved_on_the_server_lies_among_the_outputs(pod: VoicePod) -> None:
    body = {"text": "Saved.", "speaker_wav": "male", "language": "en", "file_name_or_path": "said.wav"}
    status, text, _ = ask(pod.url("XTTS", "/tts_to_file"), body)
    assert status == 200, text
    assert seconds((pod.volume / "ComfyUI/output/voice/said.wav").read_bytes()) > 0.2


def test_the_images_voices_are_there_and_a_persons_are_kept_on_the_volume(pod: VoicePod) -> None:
    listed = json.loads(inside(pod, "hearmeman", "voices", "list", "--json").stdout)
    assert {"male", "female", "calm_female"} <= {voice["name"] for voice in listed["voices"] if voice["builtin"]}
    clip = "/opt/hearmeman/voices/male.wav"
    added = inside(pod, "hearmeman", "voices", "add", clip, "--name", "Über me", "--language", "de")
    assert added.returncode == 0, added.stderr
    assert (pod.volume / "voices/Über me.wav").is_file()
    assert "Über me" in inside(pod, "hearmeman", "voices", "list").stdout
    for name in APIS:
        assert (
            b"\\u00dcber me" in ask(pod.url(name, "/voices"))[1]
            or "Über me".encode() in ask(pod.url(name, "/voices"))[1]
        )
    again = inside(pod, "hearmeman", "voices", "add", clip, "--name", "Über me")
    assert again.returncode == 1
    assert "there is a voice called" in again.stderr
    # As macOS spells it.
    decomposed = unicodedata.normalize("NFD", "Über me")
    assert inside(pod, "hearmeman", "voices", "add", clip, "--name", decomposed, "--replace").returncode == 0
    assert inside(pod, "hearmeman", "voices", "remove", "Über me").returncode == 0
    assert not (pod.volume / "voices/Über me.wav").exists()
    assert inside(pod, "hearmeman", "voices", "remove", "male").returncode == 1
    refused = inside(pod, "hearmeman", "voices", "add", "/etc/passwd", "--name", "me")
    assert (refused.returncode, (pod.volume / "voices/me.wav").exists()) == (1, False)
    assert inside(pod, "hearmeman", "voices", "add", "/nowhere.wav").returncode == 2


def commands(where: str) -> list[str]:
    """The commands of docs/voice.md that are marked for this place."""
    text = (ROOT / "docs/voice.md").read_text(encoding="utf-8")
    blocks = re.findall(rf"<!-- commands: {where} -->\n```sh\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


def test_every_command_of_the_page_works_in_a_shell_of_the_pod(pod: VoicePod) -> None:
    own = pod.volume / "own"
    own.mkdir()
    shutil.copy(ROOT / "voices/male.wav", own / "me.wav")
    (own / "script.txt").write_text("The first line.\nThe second line.\n")
    found = commands("in the pod")
    assert len(found) == 10
    for command in found:
        done = inside(pod, "/bin/bash", "-c", f". /run/hearmeman/shell.env; cd /workspace/own; {command}")
        assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    made = {str(path.relative_to(own)) for path in own.rglob("*.wav")} - {"me.wav"}
    assert made == {"hello.wav", "mine.wav", "stream.wav", "vo-output/scene_001.wav", "vo-output/scene_002.wav"}


def test_every_command_of_the_page_works_on_the_host(pod: VoicePod, tmp_path: Path) -> None:
    found = commands("on the host")
    assert len(found) == 2
    for command in found:
        words = shlex.split(command.replace("http://127.0.0.1:8020", pod.url("XTTS", "")))
        assert words[:4] == ["nix", "run", ".#xtts-vo-gen", "--"]
        done = subprocess.run(
            [str(ROOT / "nix/apps/xtts-vo-gen"), *words[4:]],
            cwd=tmp_path,
            env={**os.environ, "ACCESS_TOKEN": TOKEN, "HEARMEMAN_ROOT": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert seconds((tmp_path / "hello.wav").read_bytes()) > 0.3


def test_the_pods_own_generator_writes_files(pod: VoicePod) -> None:
    (pod.volume / "script.txt").write_text("First line.\n\nSecond line.\n")
    words = ["/xtts-vo-gen.py", "-f", "/workspace/script.txt", "-d", "/workspace/vo", "-p", "scene", "-s", "male"]
    url = pod.url("XTTS", "")
    without = inside(pod, *words, "--url", url)
    assert without.returncode == 1
    assert "ACCESS_TOKEN" in without.stderr
    done = inside(pod, *words, "--url", url, ACCESS_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (pod.volume / "vo").glob("*.wav")) == ["scene_001.wav", "scene_002.wav"]


def test_status_and_restart_know_the_voices(pod: VoicePod) -> None:
    done = inside(pod, "hearmeman", "status", "--json")
    names = {process["name"]: process for process in json.loads(done.stdout)["processes"]}
    assert {"xtts", "chatterbox"} <= set(names)
    assert inside(pod, "hearmeman", "restart", "xtts").returncode == 0
    pod.wait_for(lambda: ask(pod.url("XTTS", "/ready"))[0] == 200, "XTTS is ready again")
