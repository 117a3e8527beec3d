"""What the voice APIs advise in a refusal, followed to the letter: it works."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from support.voice import CLIENT, tone

from .conftest import PAGE


def refused(answer: httpx2.Response, status: int, advice: str) -> str:
    """Check a refusal and its advice; its sentence."""
    assert answer.status_code == status, answer.text
    message: str = answer.json()["error"]["message"]
    assert advice in message
    return message


@pytest.fixture
def clip(tmp_path: Path) -> bytes:
    return tone(tmp_path / "clip.wav", 2.0).read_bytes()


@pytest.fixture(params=["chatterbox", "xtts"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def added(url: str) -> Iterator[list[str]]:
    """Names of voices that are removed afterwards."""
    names: list[str] = []
    yield names
    for name in names:
        assert CLIENT.delete(f"{url}/voices/{name}").status_code == 200


def upload(url: str, name: str, clip: bytes) -> httpx2.Response:
    return CLIENT.post(f"{url}/voices", files={"voice_file": ("v.wav", clip)}, data={"voice_name": name})


@pytest.mark.parametrize("body", ['{"input": "Hi.", "text": "Hi."}', "[]"])
def test_a_json_object_is_sent_with_its_content_type(chatterbox: str, xtts: str, body: str) -> None:
    for url in (f"{chatterbox}/v1/audio/speech", f"{chatterbox}/tts", f"{xtts}/tts_to_audio/", f"{xtts}/tts_stream"):
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        message = refused(
            CLIENT.post(url, content=body, headers=form),
            400,
            "not a JSON object: send one with Content-Type: application/json",
        )
        name, _, value = message.rpartition("send one with ")[2].partition(": ")
        answer = CLIENT.post(url, content='{"input": "Hi.", "text": "Hi."}', headers={name: value})
        assert answer.content[:4] == b"RIFF", answer.text


@pytest.mark.parametrize(
    ("api", "path", "field", "most"),
    [("chatterbox", "/v1/audio/speech", "input", 3000), ("xtts", "/tts_to_audio/", "text", 10_000)],
)
def test_a_long_text_is_sent_in_parts(
    api: str, path: str, field: str, most: int, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(api) + path
    # Blanks count, and cost no time.
    text = "One." + " " * most + "Two."
    message = refused(CLIENT.post(url, json={field: text}), 400, "send them in parts")
    size = int(re.findall(r"\((\d+)\)", message)[0])
    assert size == most
    for begin in range(0, len(text), size):
        assert CLIENT.post(url, json={field: text[begin : begin + size]}).content[:4] == b"RIFF"


def test_a_voice_whose_name_is_taken_gets_another_or_replaces_that_one(
    url: str, added: list[str], clip: bytes, tmp_path: Path
) -> None:
    assert upload(url, "taken", clip).status_code == 201
    added.append("taken")
    longer = tone(tmp_path / "longer.wav", 3.0).read_bytes()
    refused(upload(url, "taken", longer), 409, "choose another name, or replace that one")
    assert upload(url, "another", longer).status_code == 201
    added.append("another")
    assert CLIENT.put(f"{url}/voices/taken", files={"voice_file": ("v.wav", longer)}).status_code == 200
    assert CLIENT.get(f"{url}/voices/taken/download").content == longer
    for path, field in (("", "new_name"), ("/aliases", "alias")):
        ask = CLIENT.post if path else CLIENT.put
        message = refused(ask(f"{url}/voices/taken{path}", data={field: "another"}), 409, "choose another name")
        assert "replace" not in message
    assert CLIENT.post(f"{url}/voices/taken/aliases", data={"alias": "a third"}).status_code == 200
    assert CLIENT.put(f"{url}/voices/taken", data={"new_name": "a fourth"}).status_code == 200
    added[0] = "a fourth"


def test_a_voice_of_the_image_is_not_to_be_replaced_and_ones_own_has_another_name(
    url: str, added: list[str], clip: bytes
) -> None:
    message = refused(upload(url, "female", clip), 409, "belongs to the image: choose another name")
    assert "replace" not in message
    changed = CLIENT.put(f"{url}/voices/female", files={"voice_file": ("v.wav", clip)})
    for answer in (changed, CLIENT.delete(f"{url}/voices/female")):
        refused(answer, 403, "upload your own under another name")
    assert upload(url, "my female", clip).status_code == 201
    added.append("my female")


def test_a_change_holds_one_or_several_of_what_the_error_names(url: str, added: list[str], clip: bytes) -> None:
    assert upload(url, "changing", clip).status_code == 201
    added.append("changing")
    one = f"{url}/voices/changing"
    refused(CLIENT.put(one), 400, "send voice_file, new_name, language, or several of these")
    fields: dict[str, Any] = {"language": "de"}
    assert CLIENT.put(one, data=fields).json()["voice"]["language"] == "de"
    assert CLIENT.put(one, files={"voice_file": ("v.wav", clip)}).status_code == 200
    assert CLIENT.put(one, data={"new_name": "changed"}).json()["voice"]["name"] == "changed"
    added[0] = "changed"
    fields = {"language": "fr", "new_name": "changing"}
    answer = CLIENT.put(f"{url}/voices/changed", data=fields, files={"voice_file": ("v.wav", clip)})
    assert answer.json()["voice"]["language"] == "fr"
    added[0] = "changing"


@pytest.mark.parametrize(("path", "value"), [("/voices/mine/aliases", "narrator"), ("/voices/default", "mine")])
def test_what_is_missing_is_sent_as_a_form_field(
    url: str, added: list[str], clip: bytes, path: str, value: str
) -> None:
    assert upload(url, "mine", clip).status_code == 201
    added.append("mine")
    message = refused(CLIENT.post(url + path), 400, "it is missing; send it as a form field")
    assert CLIENT.post(url + path, data={message.partition(":")[0]: value}).status_code == 200
    names = CLIENT.get(f"{url}/voices/mine").json()["aliases"]
    assert (value if value != "mine" else "default") in names
    assert CLIENT.delete(f"{url}/voices/default").status_code == 200


@pytest.mark.parametrize("folder", ["sub", "/etc"])
def test_other_speakers_are_uploaded(chatterbox: str, xtts: str, served: Path, clip: bytes, folder: str) -> None:
    """The folder of the speakers cannot be another, also not one inside it."""
    sub = served / "voices/sub"
    sub.mkdir(parents=True)
    message = refused(
        CLIENT.post(f"{xtts}/set_speaker_folder", json={"speaker_folder": folder}),
        400,
        "upload others with POST /voices",
    )
    sub.rmdir()
    path = re.findall(r"POST (\S+)", message)[0]
    answer = CLIENT.post(xtts + path, files={"voice_file": ("v.wav", clip)}, data={"voice_name": "other"})
    assert answer.status_code == 201
    assert "other" in CLIENT.get(f"{xtts}/speakers_list").json()
    assert CLIENT.delete(f"{xtts}/voices/other").status_code == 200
    there = re.findall(r"the speakers are in ([^;]+);", message)[0]
    assert CLIENT.post(f"{xtts}/set_speaker_folder", json={"speaker_folder": there}).status_code == 200


def test_files_go_into_a_folder_that_is_there(xtts: str, served: Path) -> None:
    def choose(folder: str) -> httpx2.Response:
        return CLIENT.post(f"{xtts}/set_output", json={"output_folder": folder})

    message = refused(choose("takes"), 400, "or an existing folder inside it")
    base = Path(re.findall(r"name (\S+) or", message)[0])
    (base / "takes").mkdir(parents=True)
    try:
        for folder in (str(base / "takes"), "takes"):
            assert choose(folder).status_code == 200
        body = {"text": "Hi.", "speaker_wav": "female", "language": "en", "file_name_or_path": "one.wav"}
        made = Path(CLIENT.post(f"{xtts}/tts_to_file", json=body).json()["output_path"])
        assert made.parent == base / "takes"
        made.unlink()
    finally:
        assert choose(str(base)).status_code == 200
        (base / "takes").rmdir()


def test_a_page_elsewhere_may_use_the_server_that_was_started_with_the_variable(chatterbox: str, xtts: str) -> None:
    """The two run alike, but for the variable."""
    headers = {"Origin": PAGE}
    message = refused(CLIENT.get(f"{xtts}/voices", headers=headers), 403, "set VOICE_ORIGINS=")
    assert f"set VOICE_ORIGINS={PAGE} to" in message
    answer = CLIENT.get(f"{chatterbox}/voices", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == PAGE
    refused(CLIENT.get(f"{chatterbox}/voices", headers={"Origin": "https://other.example"}), 403, "set VOICE_ORIGINS=")
