"""Every client's own request, as it sends it, is answered as it needs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

CLIENTS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("clients.json").read_text())

MAGIC = {
    "audio/wav": lambda body: body[:4] == b"RIFF" and body[8:12] == b"WAVE",
    "audio/mpeg": lambda body: body[:3] == b"ID3" or body[:1] == b"\xff",
    "audio/ogg": lambda body: body[:4] == b"OggS",
    "text/event-stream": lambda body: body.startswith(b"data: "),
}


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client["client"])
def test_a_client_is_understood(client: dict[str, Any], request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(client["api"])
    answer = httpx2.request(
        client["method"], url + client["path"], json=client.get("json"), headers=client.get("headers"), timeout=120
    )
    assert answer.status_code == 200, answer.text
    kind = answer.headers.get("content-type", "").partition(";")[0]
    if "type" in client:
        assert kind == client["type"]
        assert MAGIC[kind](answer.content)
        assert len(answer.content) > 1000
    if "contains" in client:
        assert client["contains"] in answer.text
    for key in client.get("keys", []):
        assert answer.json()[key]
    for key in client.get("items", []):
        assert answer.json()
        assert all(item[key] for item in answer.json())
    assert "Traceback" not in answer.text[:1000]


@pytest.mark.parametrize(
    "path",
    [
        "/speakers_list",
        "/speakers_list/",
        "/languages",
        "/health/",
        "/v1/health",
        "/v1/models/",
        "/tts_stream/?text=Hi",
    ],
)
def test_a_slash_and_v1_make_no_difference(xtts: str, path: str) -> None:
    assert httpx2.get(xtts + path, timeout=120).status_code == 200


def test_the_three_speakers_are_there(xtts: str) -> None:
    assert {"male", "female", "calm_female"} <= set(httpx2.get(f"{xtts}/speakers_list").json())


def test_a_preview_can_be_fetched(xtts: str) -> None:
    for speaker in httpx2.get(f"{xtts}/speakers").json():
        if speaker["name"] in ("male", "female", "calm_female"):
            assert httpx2.get(speaker["preview_url"]).content[:4] == b"RIFF"


def test_openais_names_are_there(chatterbox: str) -> None:
    names = {voice["id"] for voice in httpx2.get(f"{chatterbox}/audio/voices").json()["voices"]}
    assert {
        "default",
        "alloy",
        "ash",
        "ballad",
        "coral",
        "echo",
        "fable",
        "onyx",
        "nova",
        "sage",
        "shimmer",
        "verse",
        "marin",
        "cedar",
    } <= names


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:8001", 200),
        ("http://127.0.0.1:8000", 200),
        ("https://evil.example", 403),
        ("null", 403),
        ("http://localhost.evil.example", 403),
    ],
)
def test_pages_of_the_own_machine_may_ask_and_others_not(xtts: str, origin: str, status: int) -> None:
    answer = httpx2.get(f"{xtts}/speakers", headers={"Origin": origin})
    assert answer.status_code == status
    assert (answer.headers.get("access-control-allow-origin") == origin) == (status == 200)


def test_every_example_of_the_docs_runs(chatterbox: str, xtts: str) -> None:
    for url in (chatterbox, xtts):
        assert "swagger" in httpx2.get(f"{url}/docs").text
        described = httpx2.get(f"{url}/openapi.json").json()
        ran = 0
        for path, operations in described["paths"].items():
            for method, operation in operations.items():
                content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
                for example in content.get("examples", {}).values():
                    answer = httpx2.request(method, url + path, json=example["value"], timeout=120)
                    assert answer.status_code == 200, (path, example, answer.text)
                    ran += 1
        assert ran >= 6
