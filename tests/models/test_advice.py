"""What `hearmeman models` advises, followed: with the variable, the address or the command that it names, it works."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from fakes.hub import PATH, REPO, Hub, Repo, tiny_safetensors
from fakes.serving import Stored
from hearmeman.models.address import AddressError, parse, with_addresses
from hearmeman.models.catalogue import Catalogue
from support.fetching import Case

DEST = "checkpoints/tiny.safetensors"
TINY = tiny_safetensors()
NOTHING = Catalogue(file=(), model=(), folder=())


@pytest.mark.parametrize(
    ("address", "advice", "then"),
    [
        ("civitai:12345", "end it with @FOLDER", "civitai:12345@loras"),
        ("https://h.org/x.pth", "end it with @FOLDER", "https://h.org/x.pth@vae"),
        ("hf:owner/repo@loras", "add the path of the file", "hf:owner/repo/x.safetensors@loras"),
        (
            "https://huggingface.co/owner/repo@loras",
            "copy the link of one of its files",
            "https://huggingface.co/owner/repo/resolve/main/x.safetensors@loras",
        ),
        (
            "https://civitai.com/models/9/some-name@loras",
            "ends with ?modelVersionId=NUMBER",
            "https://civitai.com/models/9/some-name?modelVersionId=7@loras",
        ),
        ("https://h.org/@vae", "give it one, @vae/NAME.safetensors", "https://h.org/@vae/NAME.safetensors"),
        ("https://me:pw@h.org/x.pth@vae", "leave passwords and keys out", "https://h.org/x.pth@vae"),
        ("http://h.org/x.pth@vae", "begin it with https://", "https://h.org/x.pth@vae"),
    ],
)
def test_an_address_is_completed(address: str, advice: str, then: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse(address)
    assert advice in str(caught.value)
    assert parse(then).to


def test_a_second_file_for_one_place_is_given_another_name(case: Case) -> None:
    addresses = [f"https://h.org/get?id={n}@vae/x.pth" for n in range(2)]
    with pytest.raises(AddressError) as caught:
        with_addresses(NOTHING, addresses)
    [place] = re.findall(r"give it another name, (@vae)/NAME", str(caught.value))
    assert with_addresses(NOTHING, [addresses[0], addresses[1].replace("@vae/x.pth", f"{place}/other.pth")])


@pytest.mark.parametrize(
    ("token", "advice"),
    [
        ("", "then set HF_TOKEN to that account's token"),
        ("hf_wrong", "make a new token that may read it"),
    ],
)
def test_a_gated_model_is_fetched_once_the_token_is_set(case: Case, hub: Hub, token: str, advice: str) -> None:
    hub.repos[REPO] = Repo(hub.repos[REPO].files, gated=True)
    done = case.run("fetch", HF_TOKEN=token)
    assert done.code == 1 and advice in done.err, done.err
    assert case.run("fetch", HF_TOKEN=hub.token).code == 0


def test_the_licence_is_accepted(case: Case, hub: Hub) -> None:
    hub.repos[REPO] = Repo(hub.repos[REPO].files, gated=True)
    hub.unaccepted = "hf_mine"
    done = case.run("fetch", HF_TOKEN="hf_mine")
    assert done.code == 1 and "accept its licence on" in done.err, done.err
    hub.token, hub.unaccepted = "hf_mine", ""
    assert case.run("fetch", HF_TOKEN="hf_mine").code == 0


def test_what_moved_upstream_is_locked_again(case: Case, hub: Hub) -> None:
    hub.repos[REPO] = Repo({PATH: Stored(b"other" * 1000)}, commit="0" * 40)
    case.files[0] = {**case.files[0], "to": "checkpoints/tiny.bin"}
    done = case.run("fetch")
    [command] = {*re.findall(r"run `hearmeman models (lock)` to take the new one", done.err)}
    assert done.code == 1
    assert case.run(command).code == 0
    assert case.run("fetch").code == 0
    assert (case.folder / "checkpoints/tiny.bin").read_bytes() == b"other" * 1000


def test_the_cache_s_keys_are_set_or_it_is_unset(case: Case) -> None:
    done = case.run("fetch", MODEL_CACHE="s3://models")
    assert done.code and "set all three, or unset it" in done.err, done.err
    assert case.run("fetch", MODEL_CACHE="").code == 0


def test_what_does_not_fit_fits_on_a_larger_volume_or_with_fewer_models(case: Case, hub: Hub) -> None:
    hub.repos["a/b"] = Repo({"l.bin": Stored(b"l" * 3_000_000)})
    case.add("large", {"kind": "huggingface", "repo": "a/b", "path": "l.bin"}, size=3_000_000)
    quota = {"VOLUME_SIZE_GB": "0.542"}
    done = case.run("fetch", **quota)
    assert done.code == 1 and "Use a larger volume, delete files" in done.err, done.err
    [largest] = re.findall(r"or enable fewer models: the largest is (\w+) with", done.err)
    fewer = ",".join(model["id"] for model in case.models if model["id"] != largest)
    assert case.run("fetch", MODELS=fewer, **quota).code == 0
    assert case.run("fetch", VOLUME_SIZE_GB="2").code == 0


def test_a_file_is_removed_as_the_refusal_names_it(case: Case, hub: Hub) -> None:
    hub.repos["a/b"] = Repo({"l.bin": Stored(b"l" * 3_000_000), "m.bin": Stored(b"m" * 3_000_000)})
    for name in ("l", "m"):
        case.add(name, {"kind": "huggingface", "repo": "a/b", "path": f"{name}.bin"}, size=3_000_000)
    quota = {"VOLUME_SIZE_GB": "0.541"}
    assert case.run("fetch", MODELS="l", **quota).code == 0
    done = case.run("fetch", MODELS="m", **quota)
    assert done.code == 1, done.err
    [command] = re.findall(r"delete files \(`hearmeman models (prune)` lists", done.err)
    shown = case.run(command, MODELS="m")
    [words] = re.findall(r"`hearmeman models (prune --yes)` removes it", shown.out)
    assert case.run(*words.split(), MODELS="m").code == 0
    assert case.run("fetch", MODELS="m", **quota).code == 0


def test_all_that_was_fetched_goes_once_everything_is_said(case: Case) -> None:
    assert case.run("fetch").code == 0
    done = case.run("prune", "--yes", MODELS="")
    assert done.code == 2 and "or give --everything" in done.err, done.err
    [words] = re.findall(r"`hearmeman models (prune .*)` removes it", case.run("prune", MODELS="").out)
    assert case.run(*words.split(), MODELS="").code == 0
    assert not (case.folder / DEST).exists()


@pytest.mark.parametrize("more", [{"MODELS": "tiny"}, {"GPU_TIER": "datacenter"}])
def test_what_is_for_another_tier_is_fetched_by_name_or_tier(case: Case, more: dict[str, str]) -> None:
    case.models[0] |= {"tiers": ["datacenter"], "when": {"ENABLE_INFCAM": "true"}}
    given = {"MODELS": "", "ENABLE_INFCAM": "true", "GPU_TIER": "consumer"}
    said = " ".join(case.run("plan", **given).out.split())
    assert "name it in MODELS or set GPU_TIER to fetch it anyway" in said
    assert case.run("fetch", **given | more).code == 0
    assert (case.folder / DEST).exists()


def test_models_dir_is_corrected(case: Case) -> None:
    (case.volume / "file").write_text("")
    done = case.run("fetch", MODELS_DIR=str(case.volume / "file/models"))
    assert done.code and "or correct MODELS_DIR" in done.err, done.err
    assert case.run("fetch", MODELS_DIR=str(case.volume / "models")).code == 0


def test_a_lock_that_is_none_is_removed_and_made_again(case: Case) -> None:
    lock = case.volume / "catalogue.lock.json"
    lock.write_text("<<<<<<< ours")
    done = case.run("fetch")
    [command] = re.findall(r"remove it; `hearmeman models (lock)` makes a new one", done.err)
    assert done.code
    lock.unlink()
    assert case.run("fetch").code == 0
    assert case.run(command).code == 0
    assert case.run("fetch").code == 0


def test_another_place_is_given_for_the_lock(case: Case) -> None:
    done = case.run("lock", "--out", "/proc/lock.json")
    assert done.code and "give another place with --out" in done.err, done.err
    assert case.run("lock", "--out", str(case.volume / "lock.json")).code == 0


def test_a_wrong_catalogue_is_corrected_or_another_one_named(case: Case, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[[model]]\nid = 1\n")
    given = case.environ()
    done = case.run("list", MODEL_CATALOGUE=str(wrong))
    assert done.code and "Correct it, or set MODEL_CATALOGUE to another file." in done.err, done.err
    assert case.run("list", MODEL_CATALOGUE=given["MODEL_CATALOGUE"]).code == 0


def test_the_hub_is_asked_once_offline_is_unset(case: Case) -> None:
    for offline, code in (("1", 1), ("", 0)):
        process = case.start("fetch", HF_HUB_OFFLINE=offline)
        _, err = process.communicate()
        assert process.returncode == code, err
        assert ("HF_HUB_OFFLINE is set, so the Hub is not asked: unset it" in err) is bool(code), err


def test_what_was_set_aside_is_removed_by_hand(case: Case) -> None:
    (case.folder / DEST).parent.mkdir(parents=True)
    (case.folder / DEST).write_bytes(b"mine")
    assert case.run("fetch").code == 0
    [place] = re.findall(r"are kept in (\S+); remove them by hand", case.run("prune").out)
    shutil.rmtree(place)
    assert "remove them by hand" not in case.run("prune").out
    assert case.run("verify").code == 0
