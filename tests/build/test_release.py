"""What a workflow run builds, checks and pushes: its inputs, tags and baked models, and what it refuses at once."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml  # type: ignore[import-untyped]

from hearmeman_build.errors import BuildError
from hearmeman_build.registries import check_layer
from support.repository import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def _release() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release", ROOT / ".github/release.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _commands(**environ: str) -> list[list[str]]:
    found: list[list[str]] = _release().Asked(environ).commands()
    return found


def test_every_tier_is_built_and_checked_before_the_first_is_pushed() -> None:
    build = [sys.executable, "-m", "hearmeman_build", "build", "--tier"]
    to = ["--to", "ghcr.io/someone/repo"]
    assert _commands(TIERS="consumer prosumer", IMAGE="ghcr.io/Someone/Repo") == [
        [*build, "consumer"],
        ["make", "image-check", "TIER=consumer"],
        [*build, "prosumer"],
        ["make", "image-check", "TIER=prosumer"],
        ["nix", "run", ".#push", "--", "--tier", "consumer", *to],
        ["nix", "run", ".#sbom", "--", "--tier", "consumer", "--output", "sbom-consumer.json"],
        ["nix", "run", ".#push", "--", "--tier", "prosumer", *to],
        ["nix", "run", ".#sbom", "--", "--tier", "prosumer", "--output", "sbom-prosumer.json"],
    ]


def test_baked_models_are_fetched_first_and_a_custom_tag_names_one_image() -> None:
    found = _commands(TIERS="consumer prosumer", IMAGE="r/n", BAKE_WAN_480P="true", TAG="mine")
    bake = ["--bake", "wan480p"]
    models = [sys.executable, "-m", "hearmeman_build", "prefetch", "--models-only", "--tier", "consumer"]
    assert found[0] == [*models, *bake]
    pushes = [command[4:] for command in found if ".#push" in command]
    assert pushes[0] == ["--tier", "consumer", "--to", "r/n", *bake, "--tag", "mine"]
    assert pushes[1] == ["--tier", "prosumer", "--to", "r/n", *bake, "--tag", "mine-prosumer"]


def test_every_bake_that_the_workflow_offers_can_be_built_and_stored() -> None:
    release = _release()
    for name in release.BAKES:
        asked = {"TIERS": "consumer prosumer datacenter", "IMAGE": "ghcr.io/x/y", name: "true"}
        release.Asked(asked).check()


def test_no_tier_and_an_unknown_one_are_refused_before_anything_is_built() -> None:
    with pytest.raises(BuildError, match="TIERS is empty: name one at least"):
        _commands(TIERS="  ", IMAGE="r/n")
    with pytest.raises(BuildError, match="no tier huge: |no tier 'huge': "):
        _release().Asked({"TIERS": "huge", "IMAGE": "r/n"}).check()


def test_a_broken_record_and_a_tag_that_is_none_are_refused_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = _release()
    with pytest.raises(BuildError, match="'my tag' is not a tag: use letters"):
        release.Asked({"TIERS": "smoke", "IMAGE": "r/n", "TAG": "my tag"}).check()
    release.Asked({"TIERS": "smoke", "IMAGE": "r/n", "TAG": "my-tag"}).check()
    (tmp_path / "images.lock.json").write_text("<<<<<<< ours\n")
    monkeypatch.setattr(release, "ROOT", tmp_path)
    with pytest.raises(BuildError, match=r"images.lock.json holds the marks of a merge conflict: restore it"):
        release.Asked({"TIERS": "smoke", "IMAGE": "r/n"}).check()


def test_digests_are_proposed_once_more_by_a_run_that_is_started_again(tmp_path: Path) -> None:
    """With real git; what stands for `gh` takes the branch only if it is at the remote, and makes a pull request at the second try."""
    (tmp_path / "bin").mkdir()
    gh = tmp_path / "bin/gh"
    gh.write_text(
        '#!/bin/sh\n[ "$1 $2 $3" = "pr create --head" ] && git ls-remote --exit-code origin "refs/heads/$4" >&2 '
        f"&& echo $4 >>{tmp_path}/made && [ $GITHUB_RUN_ATTEMPT != 1 ]\n"
    )
    gh.chmod(0o755)
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    environ = {"PATH": path, "HOME": str(tmp_path), "GITHUB_RUN_ID": "7"}

    def run(*words: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, cwd=tmp_path, env={**environ, **more}, capture_output=True, text=True, check=False)

    git = ("git", "-c", "user.name=x", "-c", "user.email=x@example.org")
    run(*git, "init", "-q", "--bare", "origin")
    said = []
    for attempt in ("1", "2"):
        checkout = f"checkout-{attempt}"
        run(*git, "clone", "-q", "origin", checkout)
        run(*git, "-C", checkout, "commit", "-q", "--allow-empty", "-m", attempt)
        (tmp_path / checkout / "images.lock.json").write_text("[]\n")
        script = ROOT / ".github/propose-digests.sh"
        said.append(run("sh", "-c", f"cd {checkout} && {script}", GITHUB_RUN_ATTEMPT=attempt))
    assert [done.returncode for done in said] == [1, 0], said
    assert 'Allow GitHub Actions to create and approve pull requests".' in said[0].stderr
    assert (tmp_path / "made").read_text().split() == ["digests-7-1", "digests-7-2"]


def test_a_file_that_the_registry_does_not_store_is_refused_by_its_size() -> None:
    with pytest.raises(BuildError, match=r"ghcr.io does not store layers over 10 GB, a.safetensors has 14.3 GB"):
        check_layer("ghcr.io/x/y", "a.safetensors", 14_300_000_000)


def test_every_input_of_the_workflow_is_passed_on() -> None:
    text = (ROOT / ".github/workflows/images.yml").read_text()
    inputs = yaml.safe_load(text)[True]["workflow_dispatch"]["inputs"]
    assert set(inputs) == {"image_tag", "tiers", *(name.lower() for name in _release().BAKES)}
    for name in inputs:
        assert re.search(rf"inputs\.{name}\b", text), name


def test_every_action_is_pinned_by_commit() -> None:
    for workflow in WORKFLOWS:
        for used in re.findall(r"uses: (\S+)", workflow.read_text()):
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", used), f"{workflow.name}: {used}"


def test_every_folder_that_an_image_is_made_of_starts_the_workflow() -> None:
    text = (ROOT / ".github/workflows/images.yml").read_text()
    paths = yaml.safe_load(text)[True]["push"]["paths"]
    nix = "".join(path.read_text() for path in (ROOT / "nix").glob("*.nix"))
    # The smoke image alone holds what is in tests/.
    read = {name for name in re.findall(r"[ (]\.\./(\w+)", nix) if (ROOT / name).is_dir()} - {"tests"}
    assert {"python", "voices", "workflows", "comfyui_node"} <= read
    assert {f"{folder}/**" for folder in (*read, "nix")} <= set(paths)


def test_the_attestation_names_what_this_run_pushed_and_nothing_older(tmp_path: Path) -> None:
    record = tmp_path / "images.lock.json"
    to = "ghcr.io/x/y"
    pushed = {"consumer": to, "prosumer": to, "consumer-wan480p": to, "smoke": to, "datacenter": "z"}
    digests = {tier: str(number) * 64 for number, tier in enumerate(pushed)}
    entries = [
        {"tier": tier, "repository": where, "digest": f"sha256:{digests[tier]}"} for tier, where in pushed.items()
    ]
    record.write_text(json.dumps(entries))

    def subjects(**environ: str) -> str:
        found: str = _release().Asked({"IMAGE": "ghcr.io/X/y", **environ}).subjects(record)
        return found

    assert (
        subjects(TIERS="consumer prosumer datacenter") == f"{digests['consumer']}  {to}\n{digests['prosumer']}  {to}\n"
    )
    assert subjects(TIERS="consumer", BAKE_WAN_480P="true") == f"{digests['consumer-wan480p']}  {to}\n"
