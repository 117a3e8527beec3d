"""A model baked into an image: fetched by the pod's fetcher, pinned by the catalogue, and there in the image's last layer."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from fakes.hub import Hub, tiny_safetensors
from hearmeman.boot.execute import link_models
from hearmeman_build import bake, flake
from hearmeman_build.build import Image, build_image
from hearmeman_build.errors import BuildError
from hearmeman_build.host import nix
from hearmeman_build.inspect_image import layers
from support.pod import Pod
from support.ports import free_port


def test_a_small_file_is_baked(image: Image, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with Hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        bake.bake("smoke", ["tiny"], lambda line: None)
        asked = len(hub.requests)
        bake.bake("smoke", ["tiny"], lambda line: None)
        assert len(hub.requests) == asked, "what the store holds is not fetched again"
    baked = build_image("smoke", ["tiny"])

    # All but our own small layer are the plain image's, so that a variant's pull is little more than its models.
    assert [layer["digest"] for layer in baked.layers[:-2]] == [layer["digest"] for layer in image.layers[:-1]]
    assert layers(baked)[-1].made_by == "hearmeman model-smoke-tiny"
    blob = baked.layout / "blobs/sha256" / baked.layers[-1]["digest"].partition(":")[2]
    subprocess.run(["tar", "-C", str(tmp_path), "--zstd", "-xf", str(blob.resolve())], check=True)
    assert (tmp_path / "opt/models/checkpoints/tiny.safetensors").read_bytes() == tiny_safetensors()

    # In the pod it is there without a fetch, and counts as what the settings ask for.
    volume, port = tmp_path / "volume", free_port()
    volume.mkdir()
    pod = Pod(baked, volume)
    try:
        pod.start({"COMFYUI_HOST": "127.0.0.1", "COMFYUI_PORT": str(port), "HF_ENDPOINT": "http://127.0.0.1:1"})
        pod.wait_line("models.complete")
        shown = volume / "ComfyUI/models/checkpoints/tiny.safetensors"
        assert shown.readlink() == Path("/opt/models/checkpoints/tiny.safetensors")

        def ended() -> bool:
            return any("[models]" in line and "process.done exit=0" in line for line in list(pod.lines))

        pod.wait_for(ended, "the end of models")
        assert pod.stop() == 0
    finally:
        pod.kill()


def test_a_file_of_the_persons_own_stays_and_a_dead_link_is_mended(tmp_path: Path) -> None:
    baked, models = tmp_path / "baked", tmp_path / "models"
    for name in ("one", "two"):
        (baked / "vae").mkdir(parents=True, exist_ok=True)
        (baked / "vae" / name).write_text("baked")
    (models / "vae").mkdir(parents=True)
    (models / "vae/one").write_text("mine")
    (models / "vae/two").symlink_to("/gone")
    link_models(baked, models)
    assert [(models / "vae" / name).read_text() for name in ("one", "two")] == ["mine", "baked"]


def test_an_unknown_variant_lists_the_known_ones() -> None:
    with pytest.raises(BuildError, match="no variant huge of tier smoke: nix/variants.nix has tiny"):
        build_image("smoke", ["huge"])


def _catalogue(folder: Path, **more: str) -> Path:
    path = folder / "catalogue.toml"
    facts = "".join(f'{key} = "{value}"\n' for key, value in more.items())
    path.write_text(
        f'[[file]]\nid = "f"\nto = "vae/f.safetensors"\nsize = 3\n{facts}'
        '[file.source]\nkind = "huggingface"\nrepo = "a/b"\npath = "f"\nrevision = "main"\n'
        '[[model]]\nid = "m"\ntitle = "m"\nfiles = ["f"]\n'
    )
    return path


def test_a_file_that_is_not_locked_is_named_with_the_mend(tmp_path: Path) -> None:
    catalogue = _catalogue(tmp_path)
    with pytest.raises(BuildError, match="file f cannot be baked: .*run `make lock-models`"):
        bake.wanted(catalogue, ["m"])
    expression = f"""
      let models = import {flake.folder()}/nix/models.nix {{ pkgs = {{ }}; layer = x: x; }};
      in (builtins.head (map models.layerOf (models.files {catalogue} [ "m" ]))).trees
    """
    with pytest.raises(BuildError, match="file f cannot be baked: .*run `make lock-models`"):
        nix("eval", "--impure", "--json", "--expr", expression)


def test_the_catalogues_lock_pins_what_the_catalogue_leaves_open(tmp_path: Path) -> None:
    catalogue = _catalogue(tmp_path)
    locked = {"revision": "a" * 40, "size": 5, "sha256": "b" * 64, "blob": None}
    (tmp_path / "catalogue.lock.json").write_text(json.dumps({"files": {"f": locked}, "snapshots": {}}))
    [file] = bake.wanted(catalogue, ["m"])
    assert (file["size"], file["sha256"]) == (5, "b" * 64)
    expression = f"""
      let models = import {flake.folder()}/nix/models.nix {{ pkgs.fetchurl = x: x; layer = x: x; }};
      in (builtins.head (map models.layerOf (models.files {catalogue} [ "m" ]))).trees
    """
    [tree] = json.loads(nix("eval", "--impure", "--json", "--expr", expression))
    assert tree["target"] == "opt/models/vae/f.safetensors"
    assert tree["source"]["sha256"] == "b" * 64
    assert f"/resolve/{'a' * 40}/f" in tree["source"]["urls"][0]
