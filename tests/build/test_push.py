"""A push to a real registry: the digest that was built, what was sent, and what was there already."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from hearmeman_build import push as pushing
from hearmeman_build import skopeo
from hearmeman_build.build import Image
from hearmeman_build.errors import BuildError
from support.registry import Registry


@pytest.fixture
def registry() -> Iterator[Registry]:
    """A real registry on loopback."""
    with Registry() as running:
        yield running


def test_a_push_keeps_the_digest_and_the_second_sends_nothing(
    image: Image, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = registry.address
    monkeypatch.setattr(pushing, "ROOT", tmp_path)
    said: list[str] = []
    first = pushing.push("smoke", f"{address}/hearmeman", plain_http=True, say=said.append)
    sent = registry.uploads()
    second = pushing.push("smoke", f"{address}/hearmeman", plain_http=True)

    assert first.digest == second.digest == image.digest
    assert sent >= len(image.layers)
    assert (first.sent, first.skipped) == (image.size, 0)
    assert (second.sent, second.skipped) == (0, image.size)
    assert [line for line in said if "userland core: sending" in line or "userland core: sent" in line]
    assert registry.uploads() == sent
    [entry] = json.loads((tmp_path / "images.lock.json").read_text())
    assert (entry["tier"], entry["digest"]) == ("smoke", image.digest)
    url = f"http://{address}/v2/hearmeman/manifests/{image.digest}"
    request = urllib.request.Request(url, headers={"Accept": "application/vnd.oci.image.manifest.v1+json"})
    with urllib.request.urlopen(request, timeout=5) as reply:
        assert reply.headers["Docker-Content-Digest"] == image.digest


def test_a_push_to_a_tag_is_refused() -> None:
    with pytest.raises(BuildError, match="give REGISTRY/NAME, and the tag by --tag"):
        pushing.push("smoke", "127.0.0.1:5000/hearmeman:latest")


def test_a_refused_push_says_why(image: Image, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="skopeo could not copy to docker://127.0.0.1:1/x:smoke: .*refused"):
        pushing.push("smoke", "127.0.0.1:1/x", plain_http=True)


def test_an_image_is_loaded_into_a_local_store(image: Image, tmp_path: Path) -> None:
    store = f"containers-storage:[vfs@{tmp_path}/storage+{tmp_path}/run]"
    destination = pushing.load("smoke", store, "hearmeman")
    assert destination == f"{store}hearmeman:smoke"
    done = subprocess.run(["skopeo", "inspect", "--config", destination], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["config"]["Entrypoint"][0] == "/usr/bin/tini"


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("Copying blob f1c9f93f688c done  ", "done"),
        ("\x1b[1A\x1b[JCopying blob f1c9f93f688c skipped: already exists  ", "skipped"),
        ("Copying blob f1c9f93f688c [==>------] 12.0MiB / 45.0MiB", "12.0MiB/45.0MiB"),
        ("Copying blob 000000000000 done", None),
        ("Writing manifest to image destination", None),
    ],
)
def test_what_skopeo_says(line: str, seen: str | None) -> None:
    digest = "sha256:f1c9f93f688ca88cd144bbac2126d443c00b447902ef02f52e3102f89f7de194"
    assert skopeo.read_line(line, [digest]) == (None if seen is None else (digest, seen))
