"""Every client's own request, as it sends it, is answered as it needs it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.voice import CLIENT
from support.waiting import wait_for

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
    answer = CLIENT.request(
        client["method"], url + client["path"], json=client.get("json"), headers=client.get("headers")
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
    assert CLIENT.get(xtts + path).status_code == 200


def test_the_three_speakers_are_there(xtts: str) -> None:
    assert {"male", "female", "calm_female"} <= set(CLIENT.get(f"{xtts}/speakers_list").json())


def test_a_preview_can_be_fetched(xtts: str) -> None:
    for speaker in CLIENT.get(f"{xtts}/speakers").json():
        if speaker["name"] in ("male", "female", "calm_female"):
            assert CLIENT.get(speaker["preview_url"]).content[:4] == b"RIFF"


def test_openais_names_are_there(chatterbox: str) -> None:
    names = {voice["id"] for voice in CLIENT.get(f"{chatterbox}/audio/voices").json()["voices"]}
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
    answer = CLIENT.get(f"{xtts}/speakers", headers={"Origin": origin})
    assert answer.status_code == status
    assert (answer.headers.get("access-control-allow-origin") == origin) == (status == 200)


def test_a_proxy_that_changes_the_host_shuts_nobody_out_and_lets_no_page_read(xtts: str) -> None:
    headers = {"Host": "100.65.1.2:60123", "Origin": "https://pod-8020.proxy.runpod.net"}
    answer = CLIENT.get(f"{xtts}/speakers", headers=headers)
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


def test_a_preflight_is_answered(xtts: str) -> None:
    headers = {
        "Origin": "http://127.0.0.1:8001",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,cache-control",
    }
    answer = CLIENT.options(f"{xtts}/tts_to_audio/", headers=headers)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "http://127.0.0.1:8001"
    assert answer.headers["access-control-allow-headers"] == "content-type,cache-control"


def test_measures_are_prometheus_and_grow(chatterbox: str) -> None:
    def read() -> dict[str, float]:
        families = text_string_to_metric_families(CLIENT.get(f"{chatterbox}/metrics").text)
        return {
            sample.name: sample.value for family in families for sample in family.samples if len(sample.labels) == 0
        }

    before = read()
    assert not [name for name in before if name.endswith("_created")]
    assert CLIENT.post(f"{chatterbox}/v1/audio/speech", json={"input": "Count this, please."}).status_code == 200
    # The answer's last byte may come before the count.
    wait_for(lambda: read()["voice_realtime_factor_count"] > before["voice_realtime_factor_count"], "the count")
    after = read()
    assert after["voice_characters_total"] - before["voice_characters_total"] == len("Count this, please.")
    assert after["voice_audio_seconds_total"] > before["voice_audio_seconds_total"] + 0.5
    for name in ("voice_first_byte_seconds_count", "voice_realtime_factor_count"):
        assert after[name] == before[name] + 1
    assert after["voice_realtime_factor_sum"] > before["voice_realtime_factor_sum"]
    assert {"voice_waiting", "voice_in_flight", "voice_queue", "voice_loaded", "process_resident_memory_bytes"} <= set(
        after
    )


@pytest.mark.parametrize("api", ["chatterbox", "xtts"])
def test_the_docs_load_nothing_from_elsewhere(api: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(api)
    page = CLIENT.get(f"{url}/docs/")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    # No address with a host, in no spelling, and no tag that could load one.
    assert not re.search(r"https?:|(?<![:/])//[\w.-]+\.\w|[\"'`(]//", page.text), page.text
    loads = set(re.findall(r"(?:src|href|action|data|srcset|poster|import)\s*=\s*\"([^\"]*)", page.text))
    assert loads == {"data:,", "openapi.json"}
    rules = dict(rule.strip().split(" ", 1) for rule in page.headers["content-security-policy"].split(";"))
    assert rules["default-src"] == "'none'"
    assert {source for rule in rules.values() for source in rule.split()} <= {
        "'none'", "'self'", "'unsafe-inline'", "data:", "blob:",
    }  # fmt: skip
    assert CLIENT.get(f"{url}/redoc").status_code == 404


def test_every_example_of_the_docs_runs(chatterbox: str, xtts: str) -> None:
    for url in (chatterbox, xtts):
        described = CLIENT.get(f"{url}/openapi.json").json()
        ran = 0
        for path, operations in described["paths"].items():
            for method, operation in operations.items():
                content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
                for example in content.get("examples", {}).values():
                    answer = CLIENT.request(method, url + path, json=example["value"])
                    assert answer.status_code == 200, (path, example, answer.text)
                    ran += 1
        assert ran >= 6
