"""Requests in worker-comfyui's shape run unchanged, and are answered in its shape."""

from __future__ import annotations

import asyncio
import base64
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.comfyui import ComfyUI, comfyui
from fakes.s3 import S3
from hearmeman.worker import config, handler
from support.waiting import PATIENCE

REQUESTS = Path(__file__).parent / "worker_comfyui"
PNG = b"\x89PNG\r\n"
KEY = "comfyui-key-of-a-test"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyUI]:
    with comfyui(tmp_path_factory.mktemp("comfyui"), write_seconds=0.01) as running:
        yield running


def request(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((REQUESTS / f"{name}.json").read_text())
    return loaded


def run(server: ComfyUI, job: dict[str, Any], **environ: str) -> dict[str, Any]:
    settings = config.read({"COMFYUI_URL": server.url, **environ})
    return asyncio.run(handler.handle({"id": "sync-1", **job}, settings, lambda job, what: None))


def last_prompt(server: ComfyUI) -> list[Any]:
    """What ComfyUI was sent last: number, id, graph, extra data, outputs."""
    with urllib.request.urlopen(f"{server.url}/history", timeout=PATIENCE) as answer:
        prompt: list[Any] = list(json.load(answer).values())[-1]["prompt"]
    return prompt


@pytest.mark.parametrize("name", sorted(path.stem for path in REQUESTS.glob("*.json")))
def test_each_request_runs_unchanged_and_is_answered_with_images(server: ComfyUI, name: str) -> None:
    found = run(server, request(name))
    assert set(found) == {"images"}, found
    for image in found["images"]:
        assert set(image) == {"filename", "type", "data"} and image["type"] == "base64"
        assert image["filename"].startswith("ComfyUI_") and image["filename"].endswith(".png")
        assert base64.b64decode(image["data"], validate=True).startswith(PNG)


def test_its_images_lie_in_comfyuis_input_folder_under_their_names(server: ComfyUI) -> None:
    for name in ("first.png", "second.png"):
        (server.base / "input" / name).unlink(missing_ok=True)
    run(server, request("images"))
    for name in ("first.png", "second.png"):
        assert (server.base / "input" / name).read_bytes().startswith(PNG)


@pytest.mark.parametrize("name", ["comfy_org_api_key", "api_key_comfy_org"])
def test_both_spellings_of_its_key_reach_the_nodes(server: ComfyUI, name: str) -> None:
    run(server, request(name), COMFY_ORG_API_KEY="another-key-of-the-endpoint")
    assert last_prompt(server)[3]["api_key_comfy_org"] == KEY


def test_the_endpoints_key_is_used_where_a_job_brings_none(server: ComfyUI) -> None:
    run(server, request("graph"), COMFY_ORG_API_KEY=KEY)
    assert last_prompt(server)[3]["api_key_comfy_org"] == KEY
    run(server, request("graph"))
    assert "api_key_comfy_org" not in last_prompt(server)[3]


def test_with_its_bucket_variables_every_image_is_given_by_address(server: ComfyUI) -> None:
    with S3() as bucket:
        environ = {
            "BUCKET_ENDPOINT_URL": f"{bucket.url}/{bucket.bucket}",
            "BUCKET_ACCESS_KEY_ID": bucket.access_key,
            "BUCKET_SECRET_ACCESS_KEY": bucket.secret_key,
        }
        (image,) = run(server, request("graph"), **environ)["images"]
        assert image["type"] == "s3_url"
        with urllib.request.urlopen(image["data"], timeout=PATIENCE) as answer:
            assert answer.read().startswith(PNG)


def test_two_outputs_of_one_name_have_two_names_in_the_answer(server: ComfyUI) -> None:
    images = run(server, request("two_folders"))["images"]
    assert len({image["filename"] for image in images}) == len(images) == 2


def test_a_graph_that_makes_nothing_is_refused_by_comfyui_and_says_so(server: ComfyUI) -> None:
    job = request("graph")
    del job["input"]["workflow"]["9"]
    found = run(server, job)
    assert set(found) == {"error"} and "Prompt has no outputs" in found["error"]


def test_a_wrong_file_keeps_all_of_a_jobs_files_out_of_comfyui(server: ComfyUI) -> None:
    good = request("images")["input"]["images"][0]["image"]
    for wrong, says in (("?!", "not base64"), ("http://127.0.0.1:9/a.png", "private network")):
        job = request("graph")
        images = [{"name": f"half-{len(says)}.png", "image": good}, {"name": "wrong.png", "image": wrong}]
        found = run(server, {"input": {**job["input"], "images": images}})
        assert says in found["error"]
    assert not list((server.base / "input").glob("half-*"))
