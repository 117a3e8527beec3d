"""The user's specification of voices: every example, letter for letter (its ports and its script lead to ours), and its tables."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import wave
from pathlib import Path
from urllib.parse import urlsplit

import imageio_ffmpeg  # type: ignore[import-untyped]
import pytest

from hearmeman_voice.engines.chatterbox import Chatterbox
from hearmeman_voice.engines.xtts import Xtts
from support.repository import ROOT
from support.voice import CLIENT, tone

# In the order of the specification: SSE streaming speaks with the voice that the example before it uploads.
EXAMPLES = {
    "xtts, generate audio": """curl -X POST http://localhost:8020/tts_to_audio/ \\
  -H "Content-Type: application/json" \\
  -d '{"text":"Hello world","speaker_wav":"female","language":"en"}' \\
  -o output.wav""",
    "xtts, stream audio": """curl -X POST http://localhost:8020/tts_stream \\
  -H "Content-Type: application/json" \\
  -d '{"text":"Streaming test","speaker_wav":"female","language":"en"}' \\
  | ffplay -autoexit -i -""",
    "chatterbox, health check": """curl -sS http://localhost:8000/health | jq .""",
    "chatterbox, basic TTS": """curl -X POST http://localhost:8000/v1/audio/speech \\
  -H "Content-Type: application/json" \\
  -d '{"model":"chatterbox","input":"Hello world","voice":"default"}' \\
  -o cb.wav""",
    "chatterbox, upload voice": """curl -X POST http://localhost:8000/voices \\
  -F "voice_file=@./myvoice.wav" \\
  -F "voice_name=my-voice" \\
  -F "language=en\"""",
    "chatterbox, SSE streaming": """curl -N -X POST http://localhost:8000/audio/speech \\
  -H "Content-Type: application/json" \\
  -d '{"input":"SSE streaming test","voice":"my-voice","stream_format":"sse"}'""",
    "xtts-vo-gen, usage": """python3 docker/scripts/xtts-vo-gen.py --help""",
    "xtts-vo-gen, single line": """python3 docker/scripts/xtts-vo-gen.py "Hello world" -o hello.wav""",
    "xtts-vo-gen, batch": """python3 docker/scripts/xtts-vo-gen.py -f script.txt -d ./vo-output -p scene --speaker female --language en""",
    "xtts-vo-gen, stream": """python3 docker/scripts/xtts-vo-gen.py "Streaming test" --stream | ffplay -autoexit -i -""",
}
OPTIONS = (
    "-f, --file",
    "-o, --output",
    "-d, --output-dir",
    "-s, --speaker",
    "-l, --language",
    "-p, --prefix",
    "--stream",
    "--list-speakers",
    "--list-languages",
)
"""What its table of xtts-vo-gen's options lists."""

SCHEMAS = {
    "xtts": """{
  "text": "Hello world",
  "speaker_wav": "female",
  "language": "en"
}""",
    "chatterbox": """{
  "input": "Text to speak (1..3000 chars)",
  "voice": "alloy",
  "response_format": "wav",
  "speed": 1.0,
  "stream_format": "audio",
  "exaggeration": 0.5,
  "cfg_weight": 0.5,
  "temperature": 0.8
}""",
}
SPEAKING = {
    "xtts": ("/tts_to_audio/", "/tts_to_file", "/tts_stream"),
    "chatterbox": ("/audio/speech", "/v1/audio/speech", "/tts", "/audio/speech/stream", "/v1/audio/speech/stream"),
}
READING = {
    "xtts": ("/health", "/speakers_list", "/languages"),
    "chatterbox": ("/voices", "/v1/voices", "/health", "/v1/health", "/models", "/v1/models"),
}
LANGUAGES = {
    "xtts": "ar cs de en es fr hi hu it ja ko nl pl pt ru tr zh-cn",
    # It counts 23 and lists 22: zh, which the model has, is the one that it leaves out.
    "chatterbox": "ar, da, de, el, en, es, fi, fr, he, hi, it, ja, ko, ms, nl, no, pl, pt, ru, sv, sw, tr",
}


@pytest.fixture(scope="session")
def shell(tmp_path_factory: pytest.TempPathFactory, chatterbox: str, xtts: str) -> Path:
    """A folder to run the examples in, and in `bin` a curl for which the ports are these servers', a Python and players."""
    folder = tmp_path_factory.mktemp("examples")
    tone(folder / "myvoice.wav")
    (folder / "script.txt").write_text("The first line.\n\nThe second line.\n")
    (folder / "docker/scripts").mkdir(parents=True)
    (folder / "docker/scripts/xtts-vo-gen.py").symlink_to(ROOT / "nix/userland/xtts-vo-gen")
    curl = shutil.which("curl")
    assert curl is not None
    there = [
        f"--connect-to localhost:{port}:127.0.0.1:{urlsplit(url).port}"
        for port, url in ((8020, xtts), (8000, chatterbox))
    ]
    ffmpeg = shlex.quote(imageio_ffmpeg.get_ffmpeg_exe())
    commands = {
        "curl": f'exec {curl} --fail-with-body {" ".join(there)} "$@"',
        # A player without a loudspeaker.
        "ffplay": f'test "$*" = "-autoexit -i -" && exec {ffmpeg} -v error -i - -f s16le played.pcm',
        "python3": f'VOICE_URL={xtts} PYTHONPATH={ROOT / "python"} exec {shlex.quote(sys.executable)} "$@"',
        "jq": f'test "$*" = . && exec {shlex.quote(sys.executable)} -m json.tool',
    }
    (folder / "bin").mkdir()
    for name, command in commands.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{command}\n")
        (folder / "bin" / name).chmod(0o755)
    return folder


def run(shell: Path, example: str) -> bytes:
    """Run an example; give what it prints."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", EXAMPLES[example]],
        cwd=shell,
        env={"PATH": f"{shell / 'bin'}:/usr/bin:/bin"},
        capture_output=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr.decode() + done.stdout.decode()
    return done.stdout


def seconds(path: Path) -> float:
    """Read a WAV's length from its own header, as any program does."""
    with wave.open(str(path)) as file:
        return float(file.getnframes() / file.getframerate())


@pytest.mark.parametrize(("api", "path"), [(api, path) for api in SPEAKING for path in SPEAKING[api]])
def test_every_address_that_speaks_takes_the_specification_s_request(
    api: str, path: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(api)
    answer = CLIENT.post(url + path, content=SCHEMAS[api], headers={"Content-Type": "application/json"})
    assert answer.status_code == 200, answer.text
    if path == "/tts_to_file":
        assert 0.5 < seconds(Path(answer.json()["output_path"])) < 5
    else:
        assert answer.headers["content-type"] == "audio/wav" and len(answer.content) > 20_000


@pytest.mark.parametrize(("api", "path"), [(api, path) for api in READING for path in READING[api]])
def test_every_address_that_tells_answers(api: str, path: str, request: pytest.FixtureRequest) -> None:
    assert CLIENT.get(request.getfixturevalue(api) + path).status_code == 200


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_a_voice_is_uploaded_read_changed_and_deleted(chatterbox: str, tmp_path: Path, prefix: str) -> None:
    clip = tone(tmp_path / "v.wav").read_bytes()
    added = CLIENT.post(
        f"{chatterbox}{prefix}/voices", files={"voice_file": ("v.wav", clip)}, data={"voice_name": "passing"}
    )
    assert added.status_code == 201, added.text
    one = f"{chatterbox}{prefix}/voices/passing"
    assert CLIENT.get(one).json()["name"] == "passing"
    assert CLIENT.put(one, data={"language": "de"}).json()["voice"]["language"] == "de"
    assert CLIENT.delete(one).status_code == 200
    assert CLIENT.get(one).status_code == 404


def test_the_engines_speak_the_languages_and_have_the_speakers_that_it_lists(xtts: str) -> None:
    assert sorted(Xtts(Path()).languages) == LANGUAGES["xtts"].split()
    assert set(Chatterbox(Path()).languages) == {*LANGUAGES["chatterbox"].split(", "), "zh"}
    assert {"male", "female", "calm_female"} <= set(CLIENT.get(f"{xtts}/speakers_list").json())


def test_xtts_makes_a_file_of_the_right_length(shell: Path) -> None:
    run(shell, "xtts, generate audio")
    assert 0.5 < seconds(shell / "output.wav") < 5


def test_xtts_streams_what_a_player_plays(shell: Path) -> None:
    run(shell, "xtts, stream audio")
    assert 0.5 * 48000 < (shell / "played.pcm").stat().st_size < 5 * 48000


def test_chatterbox_tells_its_health(shell: Path) -> None:
    health = json.loads(run(shell, "chatterbox, health check"))
    assert health["status"] == "ready"
    assert health["engine"] == "hibari"
    assert health["version"]
    assert len(health["weights"]) == 64


def test_chatterbox_makes_a_file_of_the_right_length(shell: Path) -> None:
    run(shell, "chatterbox, basic TTS")
    assert 0.5 < seconds(shell / "cb.wav") < 5


def test_chatterbox_takes_a_voice_and_speaks_with_it_in_events(shell: Path) -> None:
    run(shell, "chatterbox, upload voice")
    events = [line for line in run(shell, "chatterbox, SSE streaming").decode().splitlines() if line]
    assert events[-1] == "data: [DONE]"
    kinds = [json.loads(line.removeprefix("data: "))["type"] for line in events[:-1]]
    assert kinds[-1] == "speech.audio.done"
    assert set(kinds[:-1]) == {"speech.audio.delta"}


def test_xtts_vo_gen_takes_every_option(shell: Path) -> None:
    said = run(shell, "xtts-vo-gen, usage").decode()
    for option in OPTIONS:
        assert all(name in said.split() or f"{name}," in said.split() for name in option.split(", ")), option


def test_xtts_vo_gen_makes_a_file_of_the_right_length(shell: Path) -> None:
    run(shell, "xtts-vo-gen, single line")
    assert 0.5 < seconds(shell / "hello.wav") < 5


def test_xtts_vo_gen_makes_a_file_of_each_line(shell: Path) -> None:
    run(shell, "xtts-vo-gen, batch")
    made = sorted((shell / "vo-output").glob("*.wav"))
    assert [path.name for path in made] == ["scene_001.wav", "scene_002.wav"]
    assert all(0.3 < seconds(path) < 5 for path in made)


def test_xtts_vo_gen_streams_what_a_player_plays(shell: Path) -> None:
    (shell / "played.pcm").unlink(missing_ok=True)
    run(shell, "xtts-vo-gen, stream")
    assert 0.5 * 48000 < (shell / "played.pcm").stat().st_size < 5 * 48000
