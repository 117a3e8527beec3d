"""A push to a real registry: the digest that was built, what was sent, and what was there already."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.picky_registry import PickyRegistry
from hearmeman_build import push as pushing
from hearmeman_build import record, skopeo
from hearmeman_build.build import Image
from hearmeman_build.errors import BuildError
from support.registry import Registry
from support.waiting import PATIENCE

_AUTHOR = ["-c", "user.name=x", "-c", "user.email=x@example.org"]


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
    for command in (["init", "-q"], ["add", "."], [*_AUTHOR, "commit", "-q", "-m", "x"]):
        (tmp_path / "file").touch()
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
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
    assert (entry["tier"], entry["tag"], entry["digest"]) == ("smoke", "smoke", image.digest)
    head = subprocess.run(
        ["git", "-C", str(tmp_path), "rev-parse", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    assert (entry["revision"], entry["dirty"], entry["cuda_floor"]) == (head, False, "12.8")
    assert (entry["defaults"]["MODELS"], entry["recommended"]) == ("smoke", {})
    url = f"http://{address}/v2/hearmeman/manifests/{image.digest}"
    request = urllib.request.Request(url, headers={"Accept": "application/vnd.oci.image.manifest.v1+json"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
        assert reply.headers["Docker-Content-Digest"] == image.digest


def test_a_gzip_push_has_a_digest_of_its_own_and_the_same_configuration(
    image: Image, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushing, "ROOT", tmp_path)
    pushed = pushing.push("smoke", f"{registry.address}/gz", plain_http=True, compression="gzip")
    assert pushed.digest != image.digest
    raw = ["skopeo", "inspect", "--tls-verify=false", "--raw", f"docker://{registry.address}/gz@{pushed.digest}"]
    manifest = json.loads(subprocess.run(raw, capture_output=True, check=True).stdout)
    assert {layer["mediaType"] for layer in manifest["layers"]} == {"application/vnd.oci.image.layer.v1.tar+gzip"}
    ours = json.loads((image.layout / "blobs/sha256" / image.digest.partition(":")[2]).read_text())
    assert manifest["config"] == ours["config"]
    [entry] = json.loads((tmp_path / "images.lock.json").read_text())
    assert (entry["digest"], entry["compression"], entry["revision"]) == (pushed.digest, "gzip", "")


def test_a_persons_tag_is_replaced_only_when_asked_and_a_tiers_tag_moves_with_a_word(
    image: Image, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushing, "ROOT", tmp_path)
    to = f"{registry.address}/moves"
    other = {registry.lay("moves", tag) for tag in ("mine", "smoke")}.pop()
    with pytest.raises(BuildError, match=f"--to {to}:mine .*: give REGISTRY/NAME, and the tag by --tag"):
        pushing.push("smoke", f"{to}:mine", plain_http=True)
    with pytest.raises(BuildError, match=f"moves:mine is another image, {other}: .*give --move-tag"):
        pushing.push("smoke", to, "mine", plain_http=True)
    assert pushing.push("smoke", to, "mine", plain_http=True, move_tag=True).digest == image.digest
    said: list[str] = []
    pushing.push("smoke", to, plain_http=True, say=said.append)
    assert [line for line in said if line == f"smoke moves from {other} to {image.digest}"]


def test_a_damaged_record_is_noticed_before_anything_is_sent(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushing, "ROOT", tmp_path)
    for text in ("<<<<<<< HEAD\n[]\n", '{"tier": "smoke"}', '[{"tier": "smoke"}]'):
        (tmp_path / "images.lock.json").write_text(text)
        with pytest.raises(BuildError, match=r"images.lock.json .*git checkout .*nothing was pushed"):
            pushing.push("smoke", f"{registry.address}/x", plain_http=True)
    assert registry.uploads() == 0


def conflicted(folder: Path, *names: str) -> None:
    """A checkout in the middle of a merge that cannot be done, in each of the files."""

    def git(*words: str) -> int:
        return subprocess.run(["git", "-C", str(folder), *_AUTHOR, *words], stdout=subprocess.DEVNULL).returncode

    git("init", "-q", "-b", "main")
    for branch, text in (("main", "[]\n"), ("theirs", "[1]\n"), ("main", "[2]\n")):
        git("checkout", "-q", *(["-b"] if branch == "theirs" else []), branch)
        for name in names:
            (folder / name).write_text(text)
        git("add", ".")
        git("commit", "-qm", text)
    assert git("merge", "-q", "theirs") == 1


def test_a_damaged_record_is_restored_from_git_or_deleted(tmp_path: Path) -> None:
    """Also in the middle of a merge, where git takes no other word for it."""
    conflicted(tmp_path, "images.lock.json")
    with pytest.raises(BuildError, match="marks of a merge conflict") as caught:
        record.read(tmp_path)
    [command] = re.findall("`(git .*)`, or delete it", str(caught.value))
    (tmp_path / "images.lock.json").unlink()
    assert record.read(tmp_path) == []
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "images.lock.json").read_text() == "[2]\n"


def test_a_push_is_recorded_inside_a_checkout(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="is kept in the checkout: run this inside one; nothing was pushed"):
        record.read(Path("/nix/store/00000000000000000000000000000000-source"))
    assert record.read(tmp_path) == []


def test_a_refusal_names_the_login_which_then_helps(
    image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushing, "ROOT", tmp_path)
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    users = tmp_path / "users"
    # bcrypt of "secret-of-the-test", of the least cost: the registry works it out for each request.
    users.write_text("me:$2y$04$abcdefghijklmnopqrstuualT.46tz0jeToGy/GIZyBarqV2mMWdi\n")
    with Registry(f"auth:\n  htpasswd:\n    realm: test\n    path: {users}\n") as registry:
        with pytest.raises(BuildError, match="wants a login with the right to write: `skopeo login .*`") as caught:
            pushing.push("smoke", f"{registry.address}/mine", plain_http=True)
        [advice] = re.findall("`(skopeo login .*)`", str(caught.value))
        login = [*advice.split(), "--username", "me", "--password-stdin"]
        subprocess.run(login, input="secret-of-the-test", text=True, check=True, stdout=subprocess.DEVNULL)
        assert pushing.push("smoke", f"{registry.address}/mine", plain_http=True).digest == image.digest


@pytest.mark.parametrize(
    ("words", "said", "more"),
    [
        (
            b"tar+zstd",
            "manifest invalid.*\nthe registry may take no zstd: give --compression gzip",
            {"compression": "gzip"},
        ),
        (
            b"artifactType",
            "the image is pushed and recorded, .*manifest invalid.*\nif .* takes no such lists, give --no-sbom",
            {"list_parts": False},
        ),
    ],
)
def test_what_a_registry_does_not_take_is_left_out_as_the_refusal_says(
    image: Image,
    registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: bytes,
    said: str,
    more: dict[str, Any],
) -> None:
    monkeypatch.setattr(pushing, "ROOT", tmp_path)
    with PickyRegistry(registry.address, words) as picky:
        with pytest.raises(BuildError, match=said):
            pushing.push("smoke", f"{picky.address}/x", plain_http=True)
        assert (tmp_path / "images.lock.json").exists() == (words == b"artifactType")
        pushed = pushing.push("smoke", f"{picky.address}/x", plain_http=True, **more)
    [entry] = json.loads((tmp_path / "images.lock.json").read_text())
    assert entry["digest"] == pushed.digest


def test_a_layer_that_the_registry_does_not_store_is_refused_before_it_is_sent(image: Image) -> None:
    huge = replace(image, layers=[*image.layers[:-1], {**image.layers[-1], "size": 14_300_000_000}])
    with pytest.raises(
        BuildError, match=r"ghcr.io does not store layers over 10 GB, .* has 14.3 GB: push to another registry"
    ):
        pushing.check_layers(huge, "ghcr.io/someone/x")
    pushing.check_layers(huge, "registry.example.org/x")


def test_docker_by_ssh_names_the_other_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://me@gpu")
    with pytest.raises(BuildError, match="skopeo does not speak SSH; .*--into docker-archive:image.tar:`"):
        pushing.load("smoke", "docker", "hearmeman")


def test_an_archive_for_docker_is_written(image: Image, tmp_path: Path) -> None:
    """What the advice for DOCKER_HOST=ssh:// says, taken literally."""
    pushing.load("smoke", f"docker-archive:{tmp_path}/image.tar:", "hearmeman")
    with tarfile.open(tmp_path / "image.tar") as archive:
        manifest = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
    assert manifest[0]["RepoTags"][0].endswith("hearmeman:smoke")
    assert len(manifest[0]["Layers"]) == len(image.layers)


def test_a_refused_push_says_why(image: Image, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="skopeo could not copy to docker://127.0.0.1:1/x:smoke: .*refused") as caught:
        pushing.push("smoke", "127.0.0.1:1/x", plain_http=True)
    assert "127.0.0.1:1 cannot be reached: check its name and the network" in str(caught.value)


def test_plain_http_is_given_as_the_refusal_says(image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushing, "ROOT", tmp_path)
    with Registry() as registry:
        with pytest.raises(BuildError, match="speaks plain HTTP: give --plain-http"):
            pushing.push("smoke", f"{registry.address}/mine")
        assert pushing.push("smoke", f"{registry.address}/mine", plain_http=True).digest == image.digest


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
