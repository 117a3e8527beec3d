"""Any model by its address: what is understood, and what is said of what is not."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from hearmeman.models.address import AddressError, parse, with_addresses
from hearmeman.models.asked import asked_for, is_address
from hearmeman.models.catalogue import Catalogue, CivitAI, HuggingFace, Source, Web, read
from hearmeman.settings import Settings
from support.repository import ROOT

FULL = read(ROOT / "python/hearmeman/models/catalogue.toml")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
LORA = HuggingFace(repo="owner/repo", path="loras/x.safetensors")


@pytest.mark.parametrize(
    ("address", "source", "to"),
    [
        ("civitai:12345@loras", CivitAI(version=12345), "loras/civitai-12345"),
        (
            "civitai:12345/pruned.safetensors@loras/mine",
            CivitAI(version=12345, file="pruned.safetensors"),
            "loras/mine/pruned.safetensors",
        ),
        ("civitai:12345@loras/mine.safetensors", CivitAI(version=12345), "loras/mine.safetensors"),
        ("https://civitai.com/models/9/some-name?modelVersionId=12345@loras", CivitAI(version=12345), None),
        ("https://civitai.red/models/9?modelVersionId=12345@loras", CivitAI(version=12345), None),
        (
            "https://civitai.com/api/download/models/12345?type=Model&format=SafeTensor@vae",
            CivitAI(version=12345),
            None,
        ),
        ("https://civitai.com/api/download/models/12345?fileId=77@vae", CivitAI(version=12345, file="77"), None),
        ("hf:owner/repo/loras/x.safetensors@loras", LORA, "loras/x.safetensors"),
        ("hf:owner/repo/loras/x.safetensors@loras/wan", LORA, "loras/wan/x.safetensors"),
        ("hf:owner/repo/loras/x.safetensors@loras/y.safetensors", LORA, "loras/y.safetensors"),
        ("https://huggingface.co/owner/repo/resolve/main/loras/x.safetensors@loras", LORA, "loras/x.safetensors"),
        ("https://huggingface.co/owner/repo/blob/main/loras/x.safetensors?download=true@loras", LORA, None),
        (
            f"https://huggingface.co/owner/repo/resolve/{COMMIT}/x.safetensors@loras",
            HuggingFace(repo="owner/repo", path="x.safetensors", revision=COMMIT),
            "loras/x.safetensors",
        ),
        ("https://h.org/a%20b/x.pth@vae", Web(url="https://h.org/a%20b/x.pth"), "vae/x.pth"),
        ("hf:owner/repo/a%20b.pt@vae/c%20d.pt", HuggingFace(repo="owner/repo", path="a b.pt"), "vae/c d.pt"),
        ("https://h.org/download?id=7@vae/x.pth", Web(url="https://h.org/download?id=7"), "vae/x.pth"),
    ],
)
def test_an_address_is_a_source_and_a_place(address: str, source: Source, to: str | None) -> None:
    file = parse(address)
    assert file.source == source
    assert file.to == to or to is None
    assert file.unnamed == (isinstance(source, CivitAI) and not file.to.endswith(".safetensors"))
    assert is_address(address)
    assert parse(file.id).source == file.source or isinstance(source, Web)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("civitai:12345", "does not say which folder: end it with @FOLDER, one of audio_encoders, "),
        ("civitai:12345@", "does not say which folder"),
        ("hf:owner/repo/x.safetensors", "does not say which folder"),
        ("civitai:12345@lora", "nothing loads from a folder 'lora' (did you mean loras"),
        ("civitai:abc@loras", "civitai: is followed by the number of a version"),
        ("https://civitai.com/models/9/some-name@loras", "names a model, not one of its versions"),
        ("hf:owner@loras", "hf: is followed by OWNER/REPO/PATH"),
        ("hf:owner/repo@loras", "names a repository: add the path of the file"),
        ("https://huggingface.co/owner/repo@loras", "is a page, not a file"),
        ("https://h.org/@vae", "has no file name: give it one, @vae/NAME.safetensors"),
        ("http://h.org/x.pth@vae", "begin it with https://"),
        ("https://me:pw@h.org/x.pth@vae", "leave passwords and keys out of addresses"),
        ("https://civitai.com/api/download/models/1?token=abc@vae", "leave passwords and keys out of addresses"),
        ("ftp://h.org/x.pth@vae", "is not an address: use civitai:VERSION@FOLDER"),
        ("hf:owner/repo/x.safetensors@loras/../x", "without '..'"),
        ("hf:owner/repo/x.safetensors@loras/.x/y", "takes no hidden"),
    ],
)
def test_what_is_no_address_is_told_what_it_lacks(address: str, told: str) -> None:
    with pytest.raises(AddressError) as error:
        parse(address)
    assert told in str(error.value)
    assert "abc@" not in str(error.value) or "civitai:abc" in address
    assert "pw" not in str(error.value)


def test_addresses_join_the_catalogue_and_are_asked_for_by_their_id() -> None:
    known, ids = with_addresses(FULL, ["civitai:1@loras", "hf:a/b/c.safetensors@vae", "civitai:1@loras"])
    asked = asked_for(known, Settings(models="civitai:1@loras", enable_controlnet=False), ids.values())
    assert [model.id for model in asked] == ["civitai:1@loras", "hf:a/b/c.safetensors@vae"]
    assert len(known.files) == len(FULL.files) + 2


def test_an_address_of_what_the_catalogue_has_is_the_catalogues_file() -> None:
    address = "hf:Comfy-Org/z_image_turbo/split_files/vae/ae.safetensors@vae"
    known, _ = with_addresses(FULL, [address])
    assert known.models[-1].files == ("zimage-ae",)
    assert known.files == FULL.files


def test_addresses_that_differ_in_their_query_are_two_and_no_id_is_too_long_for_a_file_name() -> None:
    long = "https://h.org/" + "ä/" * 200 + "x.pth"
    addresses = [f"https://h.org/get?id={n}@vae/{n}.pth" for n in range(2)] + [f"{long}@vae"]
    known, ids = with_addresses(FULL, addresses)
    assert len(set(ids.values())) == 3
    assert all(len(quote(id, safe="")) < 250 for id in ids.values())
    assert len(known.files) == len(FULL.files) + 3
    with pytest.raises(AddressError, match="give it another name"):
        with_addresses(FULL, [f"https://h.org/get?id={n}@vae/x.pth" for n in range(2)])


@pytest.mark.parametrize("second", ["hf:a/b/ae.safetensors@vae", "https://h.org/AE.safetensors@vae"])
def test_two_sources_for_one_place_are_refused_with_the_way_out(second: str) -> None:
    with pytest.raises(AddressError, match=r"\(zimage-ae\): give it another name, @vae/NAME"):
        with_addresses(FULL, [second])


def test_no_id_of_the_catalogue_looks_like_an_address() -> None:
    assert not [model.id for model in FULL.models if is_address(model.id)]
    assert isinstance(FULL, Catalogue)


@pytest.mark.parametrize(
    "address", ["hf:someone/gated/model.safetensors@loras", "civitai:12345@loras", "https://a.example/x.pth@vae"]
)
def test_a_model_by_address_is_not_for_a_cache_that_others_may_read(address: str) -> None:
    assert parse(address).no_mirror
