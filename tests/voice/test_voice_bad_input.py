"""Bad input is refused in the API's own shape, leaves nothing behind, and the server is well afterwards."""

from __future__ import annotations

import concurrent.futures
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from support.voice import CLIENT, tone

SPEECH: dict[str, tuple[dict[str, Any], int, str | None]] = {
    "empty": ({"input": ""}, 400, "input"),
    "blanks": ({"input": " \n\t "}, 400, "input"),
    "3,001 characters": ({"input": "a" * 3001}, 400, "input"),
    "only emoji": ({"input": "🙂🙂🎉"}, 400, "input"),
    "no text": ({"voice": "alloy"}, 400, "input"),
    "a number for text": ({"input": 5}, 400, "input"),
    "a list for text": ({"input": ["a"]}, 400, "input"),
    "unknown voice": ({"input": "Hi.", "voice": "nobody"}, 400, "voice"),
    "a voice as a path": ({"input": "Hi.", "voice": "../../etc/passwd"}, 400, "voice"),
    "a voice as a whole path": ({"input": "Hi.", "voice": "/etc/passwd"}, 400, "voice"),
    "a voice with NUL": ({"input": "Hi.", "voice": "a\0b"}, 400, "voice"),
    "a voice of 300 characters": ({"input": "Hi.", "voice": "v" * 300}, 400, "voice"),
    "a voice without id": ({"input": "Hi.", "voice": {"name": "x"}}, 400, "voice"),
    "unknown language": ({"input": "Hi.", "language": "tlh"}, 400, "language"),
    "unknown format": ({"input": "Hi.", "response_format": "exe"}, 400, "response_format"),
    "unknown stream": ({"input": "Hi.", "stream_format": "smoke"}, 400, "stream_format"),
    "unknown model": ({"input": "Hi.", "model": "gpt-9"}, 404, "model"),
    "speed fast": ({"input": "Hi.", "speed": "fast"}, 400, "speed"),
    "speed 0": ({"input": "Hi.", "speed": 0}, 400, "speed"),
    "speed NaN": ({"input": "Hi.", "speed": "NaN"}, 400, "speed"),
    "temperature too high": ({"input": "Hi.", "temperature": 5.1}, 400, "temperature"),
    "exaggeration infinite": ({"input": "Hi.", "exaggeration": "inf"}, 400, "exaggeration"),
    "cfg_weight below 0": ({"input": "Hi.", "cfg_weight": -0.1}, 400, "cfg_weight"),
    "a seed of a half": ({"input": "Hi.", "seed": 0.5}, 400, "seed"),
}


def is_error(answer: httpx2.Response, status: int, param: str | None = None) -> None:
    """Check that an answer is an error in OpenAI's shape that says what to do."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["code"]
    assert error["type"] == ("server_error" if status >= 500 else "invalid_request_error")
    if param is not None:
        assert (error["param"] or "").startswith(param)


@pytest.fixture(autouse=True)
def nothing_is_left(served: Path, request: pytest.FixtureRequest) -> Iterator[None]:
    """Compare the servers' folder before and after, and ask how they are."""
    urls = [request.getfixturevalue(api) for api in ("chatterbox", "xtts")]
    before = kept(served)
    yield
    assert kept(served) == before
    for url in urls:
        assert CLIENT.get(f"{url}/health").json()["status"] == "ready"


# Of the session, as the servers are: what is of a module goes to a worker of its own, which would start others.
@pytest.fixture(scope="session", autouse=True)
def all_speak_at_the_end(chatterbox: str, xtts: str) -> Iterator[None]:
    """Ask both to speak when all is over."""
    yield
    for url in (chatterbox, xtts):
        assert CLIENT.post(f"{url}/v1/audio/speech", json={"input": "Well."}).content[:4] == b"RIFF"


def kept(folder: Path) -> dict[Path, int]:
    """Give the size of every file, but for logs and the library's own notes."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".log")
    return {path: path.stat().st_size for path in files if not path.name.startswith(".voices.")}


@pytest.mark.parametrize("name", SPEECH)
def test_speech_that_cannot_be_is_refused(chatterbox: str, xtts: str, name: str) -> None:
    body, status, param = SPEECH[name]
    for url in (
        f"{chatterbox}/v1/audio/speech",
        f"{chatterbox}/audio/speech/stream",
        f"{chatterbox}/tts",
        f"{xtts}/v1/audio/speech",
    ):
        # As text, since JSON of httpx has no NUL in it and no half.
        answer = CLIENT.post(url, content=json.dumps(body), headers={"Content-Type": "application/json"})
        is_error(answer, status, param)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text", ""),
        ("text", "🙂"),
        ("text", "x" * 10_001),
        ("speaker_wav", "nobody"),
        ("speaker_wav", "../voices/x.wav"),
        ("speaker_wav", "/etc/passwd.wav"),
        ("language", "tlh"),
    ],
    ids=repr,
)
def test_xtts_speech_that_cannot_be_is_refused(xtts: str, field: str, value: str) -> None:
    body = {"text": "Hi.", "speaker_wav": "female", "language": "en", field: value}
    for path in ("/tts_to_audio/", "/tts_stream", "/tts_to_file"):
        is_error(CLIENT.post(xtts + path, json={**body, "file_name_or_path": "x.wav"}), 400, field)
    is_error(CLIENT.get(f"{xtts}/tts_stream", params=body), 400, field)


@pytest.mark.parametrize(
    "name",
    [
        "../x.wav",
        "/etc/x.wav",
        "a/b.wav",
        "..",
        ".",
        "",
        "a\0.wav",
        "n" * 300,
        ".hidden.wav",
        "x.wav/../../y",
        "\\x.wav",
    ],
    ids=repr,
)
def test_a_file_goes_into_its_folder_or_nowhere(xtts: str, name: str) -> None:
    body = json.dumps({"text": "Hi.", "speaker_wav": "female", "language": "en", "file_name_or_path": name})
    answer = CLIENT.post(f"{xtts}/tts_to_file", content=body, headers={"Content-Type": "application/json"})
    is_error(answer, 400, "file_name_or_path")


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "..%2f..%2fetc%2fpasswd", "/etc/passwd", "x%00.wav", "v" * 300]
)
def test_a_sample_is_a_speaker_s_recording_and_nothing_else(xtts: str, name: str) -> None:
    is_error(CLIENT.get(f"{xtts}/sample/{name}"), 404)


@pytest.mark.parametrize(
    "folder", ["/etc", "..", "/", "nowhere", "a\0b", "x" * 5000], ids=lambda folder: repr(folder[:20])
)
def test_folders_stay_where_they_are(xtts: str, folder: str) -> None:
    for path, key in (("/set_output", "output_folder"), ("/set_speaker_folder", "speaker_folder")):
        answer = CLIENT.post(
            xtts + path, content=json.dumps({key: folder}), headers={"Content-Type": "application/json"}
        )
        is_error(answer, 400, key)


def test_a_text_is_never_a_path(xtts: str, served: Path) -> None:
    secret = served.parent / "secret.txt"
    secret.write_text("One two three four five six seven eight nine ten. " * 20)
    body = {"text": str(secret), "speaker_wav": "female", "language": "en"}
    spoken = CLIENT.post(f"{xtts}/tts_to_audio", json=body)
    assert len(spoken.content) < 15 * 48000, "it has read the file out"


@pytest.mark.parametrize(
    "body", [b'{"input": "Hi', b"", b"[]", b"null", b"\xff\xfe", b'{"input": "\\ud800"}', b"input=Hi"], ids=repr
)
def test_half_a_json_is_refused(chatterbox: str, xtts: str, body: bytes) -> None:
    paths = ("/v1/audio/speech", "/tts"), ("/tts_to_audio/", "/tts_stream", "/tts_to_file")
    for url in (base + path for base, own in zip((chatterbox, xtts), paths, strict=True) for path in own):
        is_error(CLIENT.post(url, content=body, headers={"Content-Type": "application/json"}), 400)


def test_a_json_of_megabytes_is_refused(chatterbox: str) -> None:
    is_error(CLIENT.post(f"{chatterbox}/v1/audio/speech", json={"input": "Hi.", "instructions": "x" * (2 << 20)}), 413)


def upload(url: str, name: str, data: bytes, file: str = "voice.wav") -> httpx2.Response:
    """Upload a voice."""
    return CLIENT.post(f"{url}/voices", files={"voice_file": (file, data)}, data={"voice_name": name})


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("0 bytes", b""),
        ("a renamed program", b"MZ\x90\x00" + bytes(4096)),
        ("a WAV cut in its header", b"RIFF\x24\x00\x00\x00WAVEfmt "),
        ("text", b"#EXTM3U\nfile:///etc/passwd\n"),
        ("a list that names another file", b"ffconcat version 1.0\nfile /etc/hostname\n"),
    ],
)
def test_a_recording_that_is_none_is_refused(chatterbox: str, what: str, data: bytes) -> None:
    is_error(upload(chatterbox, f"bad {len(data)}", data), 400, "voice_file")


def test_a_tenth_of_a_second_is_refused(chatterbox: str, tmp_path: Path) -> None:
    is_error(upload(chatterbox, "short", tone(tmp_path / "short.wav", 0.1).read_bytes()), 400, "voice_file")


def test_an_upload_of_200_mb_is_refused_with_and_without_a_length(chatterbox: str, tmp_path: Path) -> None:
    big = tmp_path / "big.wav"
    with big.open("wb") as file:
        file.truncate(200 << 20)
    for header in ("Expect:", "Transfer-Encoding: chunked"):
        command = [
            "curl",
            "-sS",
            "-H",
            header,
            "-F",
            f"voice_file=@{big}",
            "-F",
            "voice_name=big",
            f"{chatterbox}/voices",
        ]
        done = subprocess.run(command, capture_output=True, check=True)
        assert json.loads(done.stdout)["error"]["code"] == "too_large"


NAMES = ["a/b", "..", "../x", "/etc/x", "v" * 300, "🙂", "", " ", ".hidden", "default", "a\\b", "a\0b"]
"""No voice and no alias can be called so."""


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_voice_cannot_be_called_anything(chatterbox: str, tmp_path: Path, name: str) -> None:
    is_error(upload(chatterbox, name, tone(tmp_path / "v.wav").read_bytes()), 400, "voice_name")


@pytest.fixture
def ann(chatterbox: str, tmp_path: Path) -> Iterator[str]:
    """Address of an uploaded voice, which is gone afterwards."""
    assert upload(chatterbox, "ann", tone(tmp_path / "ann.wav").read_bytes()).status_code == 201
    yield f"{chatterbox}/voices/ann"
    assert CLIENT.delete(f"{chatterbox}/voices/ann").status_code == 200


def test_a_voice_keeps_its_name_where_the_new_one_is_none(ann: str) -> None:
    for name in filter(None, NAMES):
        is_error(CLIENT.put(ann, data={"new_name": name}), 400, "new_name")
        is_error(CLIENT.post(f"{ann}/aliases", data={"alias": name}), 400, "alias")
    is_error(CLIENT.put(ann, data={"new_name": "female"}), 409, "new_name")
    is_error(CLIENT.post(f"{ann}/aliases", data={"alias": "female"}), 409, "alias")
    assert CLIENT.get(ann).json()["aliases"] == []


@pytest.mark.parametrize("data", [b"", b"MZ\x90\x00" + bytes(4096)], ids=["0 bytes", "a renamed program"])
def test_a_recording_stays_where_the_new_one_is_none(ann: str, data: bytes) -> None:
    before = CLIENT.get(f"{ann}/download").content
    is_error(CLIENT.put(ann, files={"voice_file": ("v.wav", data)}), 400, "voice_file")
    assert CLIENT.get(f"{ann}/download").content == before


def test_an_upload_without_its_fields_is_refused(chatterbox: str) -> None:
    is_error(CLIENT.post(f"{chatterbox}/voices", data={"voice_name": "x"}), 400, "voice_file")
    is_error(
        CLIENT.post(
            f"{chatterbox}/voices",
            content=b"--b\r\nnonsense",
            headers={"Content-Type": "multipart/form-data; boundary=b"},
        ),
        400,
    )


def test_of_two_uploads_of_one_name_one_is_kept_whichever_api_they_come_to(
    chatterbox: str, xtts: str, tmp_path: Path
) -> None:
    clips = [tone(tmp_path / f"{n}.wav", 3 + n).read_bytes() for n in range(4)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(upload, [chatterbox, xtts] * 2, ["twin"] * 4, clips))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    refused = next(answer for answer in answers if answer.status_code == 409)
    assert refused.headers["x-should-retry"] == "false"
    kept = CLIENT.get(f"{chatterbox}/voices/twin/download").content
    assert len(kept) in {len(clip) for clip in clips}
    assert CLIENT.delete(f"{chatterbox}/voices/twin").status_code == 200
    is_error(CLIENT.get(f"{chatterbox}/voices/twin"), 404)


def test_the_image_s_voices_stay(chatterbox: str, tmp_path: Path) -> None:
    is_error(CLIENT.delete(f"{chatterbox}/voices/female"), 403)
    clip = tone(tmp_path / "v.wav").read_bytes()
    is_error(CLIENT.put(f"{chatterbox}/voices/female", files={"voice_file": ("v.wav", clip)}), 403)
    is_error(CLIENT.delete(f"{chatterbox}/voices/nobody"), 404)


@pytest.mark.parametrize("path", ["/nothing", "/v1/nothing", "/v2/audio/speech", "/..%2f..%2fetc/passwd", "//"])
def test_an_unknown_address_is_an_error_of_this_shape(chatterbox: str, path: str) -> None:
    answer = CLIENT.get(chatterbox + path)
    assert answer.status_code == 200 if path == "//" else answer.json()["error"]["code"] == "not_found"


def test_another_method_is_an_error_of_this_shape(chatterbox: str) -> None:
    is_error(CLIENT.get(f"{chatterbox}/v1/audio/speech"), 405)
