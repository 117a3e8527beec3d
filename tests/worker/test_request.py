"""What jobs ask for: worker-comfyui's shape and ours are read, and what is wrong is said before anything is done."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from hearmeman.errors import UsageError
from hearmeman.worker import request

GRAPH = {"1": {"class_type": "SaveImage", "inputs": {"images": ["2", 0]}}, "2": {"class_type": "Load", "inputs": {}}}
PICTURE = base64.b64encode(b"picture").decode()
TWICE = {"name": "a.png", "image": PICTURE}


def parse(**given: Any) -> request.Request:
    return request.parse({"id": "a", "input": given}, 1000)


@pytest.mark.parametrize("key", ["comfy_org_api_key", "api_key_comfy_org"])
def test_worker_comfyuis_request_is_read(key: str) -> None:
    images = [
        {"name": "a.png", "image": f"data:image/png;base64,{PICTURE}"},
        {"name": "b/c.png", "image": PICTURE[:4] + "\n" + PICTURE[4:]},
    ]
    found = parse(workflow=GRAPH, images=images, **{key: "comfy-key"})
    assert (found.graph, found.name, found.api_key) == (GRAPH, "", "comfy-key")
    assert [(one.name, one.content) for one in found.attached] == [("a.png", b"picture"), ("b/c.png", b"picture")]


def test_ours_is_read() -> None:
    settings = {"prompt": "a fox", "steps": 4, "loop": True, "image": "https://example.com/a.png?key=secret"}
    found = parse(workflow="z-image-turbo", set=settings)
    assert (found.name, found.graph) == ("z-image-turbo", None)
    assert found.settings == {"prompt": "a fox", "steps": "4", "loop": "true"}
    assert found.uploads["image"].url.startswith("https://example.com/") and found.uploads["image"].name == "a.png"


def test_a_graph_and_an_input_may_be_text() -> None:
    assert request.parse({"input": '{"workflow": "z-image-turbo"}'}, 10).name == "z-image-turbo"
    assert parse(workflow='{"1": {"class_type": "A", "inputs": {}}}').graph == {"1": {"class_type": "A", "inputs": {}}}


def test_an_address_in_capitals_is_one() -> None:
    assert parse(workflow="x", set={"image": "HTTPS://example.com/a.png"}).uploads["image"].url


def test_the_requests_own_bucket_is_read_and_shows_no_key() -> None:
    given = {"endpointUrl": "https://e", "bucketName": "b", "accessId": "key-id", "accessSecret": "key-secret"}
    for job in ({"input": {"workflow": GRAPH}, "s3Config": given}, {"input": {"workflow": GRAPH, "s3Config": given}}):
        found = request.parse(job, 10).bucket
        assert found == request.Bucket("https://e", "b", "key-id", "key-secret")
        assert "key-id" not in repr(found) and "key-secret" not in repr(found)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "workflow"),
        ({"workflow": ""}, "workflow is empty"),
        ({"workflow": " \n"}, "workflow is empty"),
        ({"workflow": None}, "workflow is empty"),
        ({"workflow": {}}, "workflow is empty"),
        ({"workflow": 3}, "is not a workflow"),
        ({"workflow": "{"}, "not valid JSON"),
        ({"workflow": {"nodes": [], "links": []}}, "workflow"),
        ({"workflow": "../../etc/passwd.json"}, "not a path"),
        ({"workflow": "x", "set": {"image": "http://["}}, "cannot be read"),
        ({"workflow": GRAPH, "images": [{"name": "a\r\nX: y", "image": PICTURE}]}, "characters"),
        ({"workflow": GRAPH, "images": [{"name": "a\ud800", "image": PICTURE}]}, "characters"),
        ({"workflow": '{"a":' * 100_000}, "not valid JSON"),
        ({"workflow": GRAPH, "set": {"a": 1}}, "goes with the name"),
        ({"workflow": "x", "set": ["a=1"]}, "takes an object"),
        ({"workflow": "x", "set": {"a": [1]}}, "takes a text"),
        ({"workflow": GRAPH, "imges": []}, "no field 'imges'"),
        ({"workflow": GRAPH, "comfy_org_api_key": 3}, "takes the key as text"),
        ({"workflow": GRAPH, "images": [TWICE, TWICE]}, "both named 'a.png'"),
        ({"workflow": GRAPH, "images": [TWICE], "files": [{**TWICE, "name": "./a.png"}]}, "both named 'a.png'"),
        ({"workflow": GRAPH, "images": ["a.png"]}, 'needs "name"'),
        ({"workflow": GRAPH, "images": {}}, "takes a list"),
        ({"workflow": GRAPH, "images": [{"name": "a.png"}]}, 'needs "name"'),
        ({"workflow": GRAPH, "images": [{"name": "a.png", "image": "?!"}]}, "not base64"),
        ({"workflow": GRAPH, "images": [{"name": "a.png", "image": "data:image/png,x"}]}, "not in base64"),
        ({"workflow": GRAPH, "images": [{"name": "a.png", "image": "data:;base64,"}]}, "empty"),
        ({"workflow": GRAPH, "images": [{"name": "a.png", "image": "A" * 2000}]}, "WORKER_INPUT_MB"),
        ({"workflow": GRAPH, "s3Config": {"endpointUrl": "https://e"}}, "s3Config needs"),
        *(
            ({"workflow": GRAPH, "images": [{"name": name, "image": PICTURE}]}, "name")
            for name in ("../a.png", "/etc/a", "a/../../b", "a\0b", "..\\a", "x" * 300, ".")
        ),
    ],
)
def test_what_is_wrong_is_named(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse(**given)


@pytest.mark.parametrize(
    ("given", "advice", "then"),
    [
        ({"workflow": ""}, "give a graph in API format, or the name of", {"workflow": GRAPH}),
        ({"workflow": ""}, "or the name of one of the image's workflows", {"workflow": "z-image-turbo"}),
        ({"workflow": "x", "set": ["a=1"]}, "takes an object, such as", {"workflow": "x", "set": {"prompt": "a cat"}}),
        (
            {"workflow": GRAPH, "set": {"a": 1}},
            "set goes with the name of a workflow",
            {"workflow": "x", "set": {"a": 1}},
        ),
        ({"workflow": GRAPH, "set": {"a": 1}}, "change the values in your own graph itself", {"workflow": GRAPH}),
        (
            {"workflow": "x", "set": {"a": [1]}},
            "takes a text, a number, true or false, or a file by its address",
            {"workflow": "x", "set": {"a": "https://example.com/a.png"}},
        ),
        (
            {"workflow": GRAPH, "images": [TWICE, TWICE]},
            "give each its own",
            {"workflow": GRAPH, "images": [TWICE, {**TWICE, "name": "b.png"}]},
        ),
    ],
)
def test_what_the_refusal_advises_is_taken(given: dict[str, Any], advice: str, then: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        parse(**given)
    assert advice in str(caught.value)
    assert parse(**then)


def test_the_limit_of_inputs_can_be_raised() -> None:
    job = {"input": {"workflow": GRAPH, "images": [{"name": "a.png", "image": "A" * 2000}]}}
    with pytest.raises(UsageError, match="raise WORKER_INPUT_MB"):
        request.parse(job, 1000)
    assert request.parse(job, 2000).attached
