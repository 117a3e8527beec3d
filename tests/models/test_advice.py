"""What `hearmeman models` advises, followed: with the variable, the address or the command that it names, it works."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from fakes.civitai import CivitAI, Version
from fakes.hub import COMMIT, PATH, REPO, Hub, Repo, tiny_safetensors
from fakes.serving import Fault, Stored
from fakes.web import Web
from hearmeman import cli
from hearmeman.boot.owners import acting_as_comfyui
from hearmeman.models.address import AddressError, parse, with_addresses
from hearmeman.models.catalogue import Catalogue
from support.ctrl_c import ctrl_c
from support.fetching import Case
from support.waiting import wait_for

DEST = "checkpoints/tiny.safetensors"
TINY = tiny_safetensors()
ADDRESS = f"hf:{REPO}/{PATH}?revision={COMMIT}@vae"
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
    [place] = re.findall(r"give it another name, (@vae/NAME\.pth)", str(caught.value))
    assert with_addresses(NOTHING, [addresses[0], addresses[1].replace("@vae/x.pth", place)])


def test_an_address_has_one_of_the_forms_that_are_named() -> None:
    with pytest.raises(AddressError) as caught:
        parse("ftp://h.org/x.pth@vae")
    [forms] = re.findall(r"is not an address: use (.+)", str(caught.value))
    words = {"VERSION": "7", "FOLDER": "vae", "OWNER": "a", "REPO": "b", "HOST": "h.org", "PATH": "x.pth"}
    for form in re.split(r", | or ", forms):
        assert parse(re.sub("[A-Z]{2,}", lambda word: words[word[0]], form)).to.startswith("vae/")


def test_a_folder_is_chosen_from_those_that_are_named() -> None:
    with pytest.raises(AddressError) as caught:
        parse("hf:a/b/x.pth@nowhere")
    [folders] = re.findall(r"choose one of (.+)", str(caught.value))
    assert [parse(f"hf:a/b/x.pth@{folder}").to for folder in folders.split(", ")]


def test_one_of_a_models_versions_and_one_of_its_files_is_named(case: Case) -> None:
    content = {"a.safetensors": Stored(TINY), "b.safetensors": Stored(tiny_safetensors())}
    with CivitAI({7: Version(content)}) as site:
        site.models[55] = (7,)
        done = case.run("add", "civitai:55@loras", CIVITAI_ENDPOINT=site.url)
        [version] = re.findall(r"its versions are (\d+) \(v1\): name one of them", done.err)
        done = case.run("add", f"civitai:{version}/c@loras", CIVITAI_ENDPOINT=site.url)
        [files] = re.findall(r"its files are (.+): name one of them", done.err)
        for file in files.split(", "):
            assert case.run("add", f"civitai:{version}/{file}@loras", CIVITAI_ENDPOINT=site.url).code == 0
    assert {path.name for path in (case.folder / "loras").iterdir()} == set(content)


def test_a_file_whose_source_names_it_badly_is_given_a_name(case: Case) -> None:
    with CivitAI({7: Version({".x.safetensors": Stored(TINY)})}) as site:
        done = case.run("add", "civitai:7@loras", CIVITAI_ENDPOINT=site.url)
        [place] = re.findall(r"is not a valid file name: give it one, (@loras/NAME\.safetensors)", done.err)
        assert case.run("add", f"civitai:7{place}", CIVITAI_ENDPOINT=site.url).code == 0
    assert (case.folder / place[1:]).read_bytes() == TINY


@pytest.mark.parametrize(
    ("address", "advice"),
    [
        (f"hf:{REPO}/nothing.safetensors@vae", "does not exist in that repository (404): correct its path"),
        (f"hf:{REPO}s/{PATH}@vae", "check its name"),
        ("{web}/nothing.safetensors@vae", "check its address"),
        ("{web}/round/x.safetensors@vae", "redirects endlessly: check the address"),
    ],
)
def test_an_address_of_nothing_is_corrected(case: Case, address: str, advice: str) -> None:
    with Web({"x.safetensors": Stored(TINY)}) as web:
        done = case.run("add", address.format(web=web.url))
        assert done.code == 1 and advice in done.err, done.err
        right = f"hf:{REPO}/{PATH}@vae" if address.startswith("hf:") else f"{web.url}/x.safetensors@vae"
        assert case.run("add", right).code == 0


def test_a_private_repository_is_read_with_a_token_that_may(case: Case, hub: Hub) -> None:
    hub.repos[REPO] = Repo(hub.repos[REPO].files, private=True)
    hub.unaccepted = "hf_another"
    for token, advice in (("", "if it is private, set HF_TOKEN"), ("hf_another", "check that HF_TOKEN may read it")):
        done = case.run("fetch", HF_TOKEN=token)
        assert done.code == 1 and advice in done.err, done.err
    assert case.run("fetch", HF_TOKEN=hub.token).code == 0


def test_hf_endpoint_is_corrected(case: Case, hub: Hub) -> None:
    done = case.run("fetch", HF_ENDPOINT=f"{hub.url}/mirror/of/it")
    assert done.code and f"{hub.url}/mirror/of/it answered 404: check HF_ENDPOINT" in done.err, done.err
    assert case.run("fetch", HF_ENDPOINT=hub.url).code == 0


def test_a_snapshots_patterns_are_corrected(case: Case) -> None:
    source = {"kind": "huggingface-snapshot", "repo": REPO, "include": ["*.bin"]}
    case.add("parts", source, "vae/parts")
    done = case.run("fetch", MODELS="parts")
    assert done.code == 1 and "check the catalogue's patterns" in done.err, done.err
    case.files[-1]["source"] = source | {"include": ["*.safetensors"]}
    assert case.run("fetch", MODELS="parts").code == 0


def test_a_misspelt_model_and_variable_are_corrected(case: Case) -> None:
    done = case.run("fetch", MODELS="tinny")
    [right] = re.findall(r"no model 'tinny' \(did you mean (\w+)\?\): .*; correct MODELS", done.err)
    assert case.run("fetch", MODELS=right).code == 0
    case.models[0]["when"] = {"ENABLE_INFCAN": "true"}
    [right] = re.findall(r"is not a variable \(did you mean (\w+).*: correct it", case.run("fetch").err)
    case.models[0]["when"] = {right: "true"}
    assert case.run("fetch").code == 0


@pytest.mark.parametrize("named", ["MODELS=tiny", "models fetch tiny"])
def test_a_model_of_the_catalogue_is_not_added_but_enabled(case: Case, named: str) -> None:
    done = case.run("add", "tiny", MODELS="")
    assert done.code == 2 and named in done.err, done.err
    words = {"models": ("fetch", "tiny"), "MODELS=tiny": ("fetch",)}[named.split()[0]]
    assert case.run(*words, MODELS="tiny" if "=" in named else "").code == 0
    assert (case.folder / DEST).exists()


def test_an_address_is_noted_by_root_and_not_by_comfyuis_user(hub: Hub) -> None:
    with tempfile.TemporaryDirectory(prefix="volume-") as volume:
        Path(volume).chmod(0o755)
        case = Case(Path(volume), {"HF_ENDPOINT": hub.url})
        case.as_in_pod()
        words, environ = ["models", "add", ADDRESS], case.environ()
        with acting_as_comfyui(), contextlib.redirect_stderr(io.StringIO()) as err:
            assert cli.main(words, environ) == 1
        assert "added.json cannot be written: Permission denied: free some space, or run it as root" in err.getvalue()
        assert cli.main(words, environ) == 0


def test_what_a_passing_cause_kept_away_comes_with_the_same_command(case: Case, hub: Hub) -> None:
    hub.faults[Stored(TINY).sha256] = Fault("status", status=503)
    done = case.run("fetch", DOWNLOAD_TIMEOUT="1")
    assert done.code == 75 and "1 of them may work later: run the same command again." in done.err, done.err
    hub.faults.clear()
    assert case.run("fetch", DOWNLOAD_TIMEOUT="1").code == 0


@pytest.mark.parametrize("words", [("fetch",), ("add", ADDRESS)])
def test_after_ctrl_c_the_same_command_goes_on(case: Case, hub: Hub, words: tuple[str, ...]) -> None:
    held = hub.faults[Stored(TINY).sha256] = Fault("hold", times=1)
    # A process of its own: what its threads still do ends with it.
    process = case.start(*words)
    wait_for(held.held.is_set, "the file to be on its way", over=lambda: process.poll() is not None)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    held.release.set()
    assert process.returncode == 130 and "what has arrived is kept; run the same command again to continue" in err, err
    assert case.run(*words).code == 0


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


def test_after_ctrl_c_verify_starts_over(case: Case) -> None:
    with Web({"x.bin": Stored(TINY)}) as web:
        there = case.add("x", {"kind": "url", "url": f"{web.url}/x.bin"})
        there.parent.mkdir(parents=True)
        there.write_bytes(TINY)
        held = web.faults["x.bin"] = Fault("hold", times=1)
        with ctrl_c(held.held.is_set, held.release.set):
            done = case.run("verify", MODELS="x")
        assert done.code == 130 and "no file was changed; run the same command to start over" in done.err, done.err
        assert there.read_bytes() == TINY
        assert case.run("verify", MODELS="x").code == 0
