"""poetry.lock: fresh, of the image's versions, and readable to poetry2nix."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from pathlib import Path

from hearmeman_build import lock_poetry
from hearmeman_build.host import ROOT

PROJECT = (ROOT / "pyproject.toml").read_text()
LOCK = tomllib.loads((ROOT / "poetry.lock").read_text())


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_lock_is_of_this_pyproject() -> None:
    assert LOCK["metadata"]["content-hash"] == lock_poetry.content_hash(tomllib.loads(PROJECT)), "run `make lock`"


def test_a_machine_of_ones_own_has_the_images_versions() -> None:
    here = {_normal(package["name"]): package["version"] for package in LOCK["package"]}
    image = json.loads((ROOT / "nix/environments/lock.json").read_text())["runtime"]
    assert {name: here.get(name) for name in (_normal(entry["name"]) for entry in image)} == {
        _normal(entry["name"]): entry["version"] for entry in image
    }


def test_a_lock_that_fits_is_left_alone_and_another_is_not(tmp_path: Path) -> None:
    (tmp_path / "nix/environments").mkdir(parents=True)
    for name in ("poetry.lock", "pyproject.toml", "nix/environments/lock.json"):
        shutil.copy(ROOT / name, tmp_path / name)
    assert lock_poetry.fits(tmp_path)
    lock = tmp_path / "nix/environments/lock.json"
    document = json.loads(lock.read_text())
    document["runtime"][0]["version"] = "0.0.1"
    lock.write_text(json.dumps(document))
    assert not lock_poetry.fits(tmp_path)


def test_every_wheel_is_for_a_processor_that_poetry2nix_knows() -> None:
    files = [file["file"] for package in LOCK["package"] for file in package["files"]]
    assert files
    assert [file for file in files if re.search(r"riscv64|loongarch|musllinux|win_amd64|s390x|ppc64le", file)] == []
    for package in LOCK["package"]:
        assert package["files"], package["name"]


def test_addresses_and_foreign_wheels_go() -> None:
    digest = "a" * 64
    kept = f'    {{file = "x-1-cp311-cp311-manylinux2014_x86_64.whl", hash = "sha256:{digest}"}},\n'
    gone = f'    {{file = "x-1-cp311-cp311-manylinux_2_31_riscv64.whl", hash = "sha256:{digest}"}},\n'
    source = '\n[package.source]\ntype = "legacy"\nurl = "https://example.org"\nreference = "index"\n'
    text = f'files = [\n{kept}{gone}]\n{source}\ncontent-hash = "0"\n'
    assert lock_poetry.tidy(text, "1") == f'files = [\n{kept}]\n\n\ncontent-hash = "1"\n'


def test_what_the_image_has_is_asked_for_by_version() -> None:
    text = lock_poetry.pinned(PROJECT, {"boto3": "1.2", "hf_xet": "3.4", "six": "5.6"})
    wanted = tomllib.loads(text)["tool"]["poetry"]
    assert {"boto3": "==1.2", "hf-xet": "==3.4", "six": "==5.6", "rich": "*"}.items() <= wanted["dependencies"].items()
    assert wanted["group"]["host"]
