"""What the worker advises, followed: with the request, the variable or the bucket that it names, the job runs."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.comfyui import ComfyUI, comfyui
from fakes.hub import Hub
from fakes.r2 import R2
from hearmeman import cli
from hearmeman.errors import UsageError
from hearmeman.worker import answer, config, handler, start
from support.repository import ROOT

FOLDER = ROOT / "workflows"
IMAGE = {"workflow": "smoke-image", "set": {"width": 8, "height": 8}}
KEYS = {"BUCKET_ACCESS_KEY_ID": "i", "BUCKET_SECRET_ACCESS_KEY": "s"}
PICTURE = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyUI]:
    with comfyui(tmp_path_factory.mktemp("comfyui"), write_seconds=0.01) as running:
        yield running


@pytest.fixture
def r2() -> Iterator[R2]:
    with R2() as bucket:
        yield bucket


def run(server: ComfyUI, given: dict[str, Any], workflows: Path = FOLDER, **environ: str) -> dict[str, Any]:
    settings = config.read({"COMFYUI_URL": server.url, "WORKER_PRIVATE_URLS": "true", **environ}, workflows)
    return asyncio.run(handler.handle({"id": "1", "input": given}, settings, lambda job, what: None))


def own(r2: R2, **changes: str) -> dict[str, str]:
    keys = {"accessId": r2.access_key, "accessSecret": r2.secret_key}
    return {"endpointUrl": r2.url, "bucketName": r2.bucket, **keys, **changes}


def test_an_answer_that_is_too_large_goes_to_the_bucket_that_is_given(
    server: ComfyUI, r2: R2, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer, "RUN_BYTES", 5000)
    graph = json.loads((FOLDER / "smoke-image.json").read_text())
    graph["1"]["_meta"] = {"title": "x" * 8000}  # ComfyUI writes it into the picture.
    large = {"workflow": graph}
    said = run(server, large)["error"]
    assert "give s3Config in the request" in said and "or make them smaller" in said
    [names] = re.findall(r"or set (R2_ENDPOINT, R2_BUCKET) and R2's two keys", said)
    [theirs] = re.findall(r"\(or (\w+) and its keys\)", said)
    values = r2.environ()
    four = {name: values[name] for name in (*names.split(", "), "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY")}
    three = {theirs: f"{r2.url}/{r2.bucket}", **dict(zip(KEYS, (r2.access_key, r2.secret_key), strict=True))}
    for given, environ in (({**large, "s3Config": own(r2)}, {}), (large, four), (large, three)):
        images = run(server, given, FOLDER, **environ)["images"]
        assert {image["type"] for image in images} == {"s3_url"}
    [image] = run(server, IMAGE)["images"]
    assert image["type"] == "base64"


@pytest.mark.parametrize(
    "wrong", [{"endpointUrl": "http://127.0.0.1:9"}, {"bucketName": "another"}, {"accessSecret": "another"}]
)
def test_a_bucket_is_corrected_where_it_is_to_be_checked(server: ComfyUI, r2: R2, wrong: dict[str, str]) -> None:
    said = run(server, {**IMAGE, "s3Config": own(r2, **wrong)})["error"]
    assert "Check the endpoint, the bucket's name and the key's right to write" in said
    assert run(server, {**IMAGE, "s3Config": own(r2)})["images"][0]["type"] == "s3_url"


def test_a_key_is_given_the_right_to_write(server: ComfyUI, r2: R2) -> None:
    r2.may_write = False
    assert "the key's right to write" in run(server, {**IMAGE, "s3Config": own(r2)})["error"]
    r2.may_write = True
    assert run(server, {**IMAGE, "s3Config": own(r2)})["images"][0]["type"] == "s3_url"


def test_the_endpoint_of_a_jobs_bucket_is_corrected(server: ComfyUI, r2: R2) -> None:
    said = run(server, {**IMAGE, "s3Config": own(r2, endpointUrl="https://account.r2.invalid")})["error"]
    [name, where] = re.findall(r"check (\w+) in (\w+)", said)[0]
    assert run(server, {**IMAGE, where: own(r2) | {name: r2.url}})["images"][0]["type"] == "s3_url"


@pytest.mark.parametrize(
    ("given", "advice", "more"),
    [
        ({"BUCKET_ENDPOINT_URL": "https://h/b"}, "set it, or unset all", KEYS),
        ({"BUCKET_ENDPOINT_URL": "https://h", **KEYS}, "set BUCKET_NAME too", {"BUCKET_NAME": "b"}),
        (
            {"BUCKET_ENDPOINT_URL": "https://h", **KEYS},
            "or write https://HOST/BUCKET",
            {"BUCKET_ENDPOINT_URL": "https://h/b"},
        ),
    ],
)
def test_the_bucket_of_the_endpoint_is_completed_or_unset(
    given: dict[str, str], advice: str, more: dict[str, str]
) -> None:
    with pytest.raises(UsageError, match=advice):
        config.read(given)
    bucket = config.read(given | more).always
    assert bucket is not None and (bucket.endpoint, bucket.name) == ("https://h", "b")
    assert config.read({}).always is None


@pytest.mark.parametrize("path", ["/etc/passwd", "/no/such/file", str(FOLDER / "index.toml")])
def test_a_file_is_given_by_its_content_and_not_by_a_path_on_the_worker(server: ComfyUI, path: str) -> None:
    said = run(server, {"workflow": "qwen-image-edit", "set": {"image": path}})["error"]
    # The same of every path: whether there is such a file is none of the job's business.
    assert said == (
        "set takes a file by its address or as a data URI: a path on the worker is not one of the job's files"
    )
    # This ComfyUI has none of the workflow's nodes, but it has the picture.
    before = set((server.base / "input").glob("*"))
    run(server, {"workflow": "qwen-image-edit", "set": {"image": PICTURE.replace("AAAA", path.encode().hex() * 4, 1)}})
    assert set((server.base / "input").glob("*")) > before


def test_a_larger_disk_is_asked_for_where_the_disk_is_full_and_nowhere_else(
    server: ComfyUI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"workflow": json.loads((FOLDER / "smoke-image.json").read_text())}
    given |= {"images": [{"name": "a.png", "image": PICTURE}]}

    def full(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as small:
        small.setattr(Path, "write_bytes", full)
        said = run(server, given)["error"]
        assert said == "the worker's disk failed: No space left on device: give the endpoint a larger container disk"
    with monkeypatch.context() as gone:
        gone.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
        assert run(server, given)["error"] == "the worker's disk failed: No such file or directory"
    assert run(server, given)["images"]


def test_a_workflow_without_a_file_warms_the_worker_up(server: ComfyUI) -> None:
    given = {"COMFYUI_URL": server.url, "WORKER_WARMUP": "qwen-image-edit"}
    marks: list[str] = []
    with pytest.raises(start.NotFitError, match="Name a workflow that runs here without a file, or unset it"):
        asyncio.run(start.warm_up(config.read(given, FOLDER), marks.append))
    assert marks == ["comfyui"]
    asyncio.run(start.warm_up(config.read(given | {"WORKER_WARMUP": "smoke-image"}, FOLDER), marks.append))
    assert marks == ["comfyui", "comfyui", "warm-up"]
    asyncio.run(start.warm_up(config.read({"COMFYUI_URL": server.url}, FOLDER), marks.append))


def test_a_volume_is_filled_before_a_worker_takes_jobs(tmp_path: Path) -> None:
    with Hub() as hub:
        given = {"VOLUME_DIR": str(tmp_path), "MODELS": "smoke", "HF_ENDPOINT": hub.url, "PATH": os.environ["PATH"]}
        given |= {"MODEL_CATALOGUE": str(ROOT / "tests/smoke/catalogue.toml"), "PYTHONPATH": str(ROOT / "python")}
        with pytest.raises(start.NotFitError, match="fill the volume first .* or see in this worker's log") as caught:
            start.check_models(sys.executable, config.read(given))
        [words] = re.findall(r"why `hearmeman (.+)` failed", str(caught.value))
        assert cli.main(words.split(), given) == 0
        start.check_models(sys.executable, config.read(given))
