"""The plan is a function of settings, catalogue, disk and machine; what it says holds for any of them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearmeman.models import lock
from hearmeman.models.asked import UnknownModelError, UnknownVariableError, asked_for, for_tier
from hearmeman.models.catalogue import (
    Catalogue,
    CatalogueError,
    CivitAI,
    File,
    HuggingFace,
    Listing,
    Model,
    Part,
    Snapshot,
    Web,
    read,
)
from hearmeman.models.folders import COMFYUI_FOLDERS
from hearmeman.models.notes import Host
from hearmeman.models.plan import (
    MARGIN_BYTES,
    Disk,
    DiskTooSmallError,
    Found,
    Plan,
    Record,
    check_space,
    make_plan,
)
from hearmeman.settings import Settings, load
from support.repository import ROOT, TESTS

SMOKE = TESTS / "smoke/catalogue.toml"
FULL = ROOT / "python/hearmeman/models/catalogue.toml"
TO, SIZE = "checkpoints/tiny.safetensors", 4194384
GB = 10**9


@pytest.fixture(scope="module")
def smoke() -> Catalogue:
    return read(SMOKE)


@pytest.fixture(scope="module")
def full() -> Catalogue:
    return read(FULL)


def empty(free: int = 10**13) -> Disk:
    return Disk({}, {}, {}, {}, free)


def disk(found: Found | None = None, record: Record | None = None, free: int = 10**12) -> Disk:
    return Disk({TO: found} if found else {}, {TO: record} if record else {}, {}, {}, free)


def planned(full: Catalogue, host: Host | None = None, **variables: str) -> Plan:
    """The plan of the full catalogue for an empty disk."""
    chosen = load({"ENABLE_CONTROLNET": "false", **variables})
    host = host or Host()
    asked = asked_for(full, chosen)
    models = for_tier(asked, chosen, host.tier)
    return make_plan(full, models, empty(), host, [model for model in asked if model not in models])


@pytest.mark.parametrize(
    ("found", "record", "action"),
    [
        (None, None, "fetch"),
        (Found(SIZE, 1), None, "verify"),
        (Found(SIZE - 1, 1), None, "fetch"),
        (Found(SIZE, 1), Record(SIZE, 2, "bc4379b0"), "verify"),
        (Found(SIZE, 1), Record(SIZE, 1, "another"), "fetch"),
        (Found(SIZE, 1), Record(SIZE, 1, read(SMOKE).files[0].sha256 or ""), "present"),
    ],
)
def test_what_is_done_about_a_file(smoke: Catalogue, found: Found | None, record: Record | None, action: str) -> None:
    plan = make_plan(smoke, smoke.models, disk(found, record), Host())
    assert [step.action for step in plan.steps] == [action]


def test_what_does_not_fit_is_refused_with_the_figures(smoke: Catalogue) -> None:
    plan = make_plan(smoke, smoke.models, disk(free=1_000_000), Host())
    with pytest.raises(DiskTooSmallError, match=r"has 0\.00 GB free.*nothing was fetched"):
        check_space(plan, "/workspace/ComfyUI/models")


def test_a_full_disk_is_no_matter_when_all_is_present(smoke: Catalogue) -> None:
    record = Record(SIZE, 1, smoke.files[0].sha256 or "")
    check_space(make_plan(smoke, smoke.models, disk(Found(SIZE, 1), record, free=0), Host()), "/m")


def test_only_what_is_asked_for(smoke: Catalogue) -> None:
    assert asked_for(smoke, Settings()) == ()
    assert [model.id for model in asked_for(smoke, Settings(models=" smoke,"))] == ["smoke"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('to = "checkpoints/', 'to = "../', "file smoke-tiny: to"),
        ('to = "checkpoints/tiny', 'to = "tiny', "takes FOLDER/NAME"),
        ('to = "checkpoints/', 'to = "checkpoints/.', "takes no hidden"),
        ('to = "checkpoints/', 'to = "models/', "nothing loads from models/"),
        ("size = 4194384", "size = -1", "file smoke-tiny: size: must be at least 0"),
        ('files = ["smoke-tiny"]', 'files = ["other"]', "unknown file other"),
        ("[[model]]", "[[modell]]", "modell: is not a known field"),
        ("[[file]]", "[[file", "not TOML"),
        ('kind = "huggingface"', 'kind = "ftp"', "kind"),
        ("size = 4194384", 'size = "4 MB"', "file smoke-tiny: size: must be a whole number"),
        ('files = ["smoke-tiny"]', "files = []", "model smoke: files: must not be empty"),
        ('id = "smoke-tiny"', "id = 7", "file 7: id: must be text"),
        ('id = "smoke-tiny"', "", "file number 1: id: is missing"),
        ('kind = "huggingface"', 'kind = "git-lfs"', "git-lfs"),
    ],
)
def test_a_wrong_catalogue_is_refused_by_name(tmp_path: Path, old: str, new: str, told: str) -> None:
    path = tmp_path / "catalogue.toml"
    path.write_text(SMOKE.read_text().replace(old, new, 1))
    with pytest.raises(CatalogueError, match=told):
        read(path)


SNAPSHOT = (
    SMOKE.read_text().replace('"huggingface"', '"huggingface-snapshot"').replace('path = "tiny.safetensors"\n', "")
)


@pytest.mark.parametrize(
    ("wrong", "advice", "right"),
    [
        (
            SMOKE.read_text().replace("checkpoints/", "mine/"),
            "nothing loads from mine/: add a [[folder]]",
            SMOKE.read_text().replace("checkpoints/", "mine/") + '[[folder]]\nname = "mine"\nread_by = "my node"\n',
        ),
        (
            SNAPSHOT,
            "a snapshot has no size or sha256 of its own: use `about`",
            re.sub("sha256 = .*\n", "", SNAPSHOT).replace("size = 4194384", "about = 4_000_000"),
        ),
    ],
)
def test_a_catalogue_is_corrected_as_the_refusal_says(tmp_path: Path, wrong: str, advice: str, right: str) -> None:
    path = tmp_path / "catalogue.toml"
    path.write_text(wrong)
    with pytest.raises(CatalogueError, match=re.escape(advice)):
        read(path)
    path.write_text(right)
    assert read(path).files


@pytest.mark.parametrize(("other", "told"), [("vae/A.bin", "differ only in case"), ("vae/A.BIN/part", "lies inside")])
def test_places_that_differ_in_case_alone_are_refused(other: str, told: str) -> None:
    files = tuple(File(id=to, source=Web(url="http://x/y"), to=to) for to in ("vae/a.bin", other))
    with pytest.raises(ValueError, match=told):
        Catalogue(file=files, model=())
    with pytest.raises(ValueError, match=r"files A\.bin and a\.bin differ only in case"):
        Listing(revision="c", parts=(Part(path="a.bin", size=1), Part(path="A.bin", size=1)))


def test_two_files_for_one_place_are_refused(tmp_path: Path) -> None:
    text = SMOKE.read_text()
    path = tmp_path / "catalogue.toml"
    file = text[text.index("[[file]]") : text.index("[[model]]")]
    path.write_text(text + file.replace('"smoke-tiny"', '"again"'))
    with pytest.raises(CatalogueError, match=f"destination {TO} appears twice"):
        read(path)


def test_a_variable_that_does_not_exist_is_named(smoke: Catalogue) -> None:
    model = smoke.models[0].model_copy(update={"when": {"ENABLE_CONTROLNETS": "true"}})
    with pytest.raises(UnknownVariableError, match="did you mean ENABLE_CONTROLNET"):
        asked_for(smoke.model_copy(update={"models": (model,)}), Settings())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("vace", "(did you mean vace-14b?)"),
        ("SCAIL", "(did you mean scail, scail2 or scail-bf16?)"),
        ("qwen", "(did you mean qwen-edit-2511-Q2_K, qwen-edit-2511-Q3_K_M or qwen-edit-2511-Q4_K_M?)"),
        ("nope", "no model 'nope': `hearmeman models list` shows all"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(full: Catalogue, name: str, words: str) -> None:
    with pytest.raises(UnknownModelError) as told:
        asked_for(full, Settings(), [name])
    assert words in str(told.value)
    assert "MODELS" not in str(told.value)
    with pytest.raises(UnknownModelError, match="correct MODELS"):
        asked_for(full, Settings(models=name))


# The full catalogue


@pytest.mark.parametrize(
    ("variables", "ids", "gigabytes"),
    [
        ({}, set(), 0.0),
        ({"ENABLE_CONTROLNET": "true"}, {"controlnet-canny", "controlnet-depth", "controlnet-openpose"}, 2.17),
        (
            {"ENABLE_CONTROLNET": "true", "CONTROLNET_MODELS": "depth, lineart"},
            {"controlnet-depth", "controlnet-lineart"},
            1.45,
        ),
        ({"ENABLE_VIBEVOICE": "true"}, {"vibevoice-large"}, 18.70),
        ({"ENABLE_VIBEVOICE": "true", "VIBEVOICE_MODEL": "1.5B"}, {"vibevoice-1.5b"}, 5.40),
        ({"ENABLE_VIBEVOICE": "true", "VIBEVOICE_MODEL": "Large-Q8"}, {"vibevoice-large-q8"}, 11.60),
        ({"WAN_720P": "true"}, {"wan21-t2v-14b"}, 21.29),
        ({"WAN_480P": "true"}, {"wan21-t2v-1.3b"}, 9.83),
        ({"ENABLE_I2V": "true"}, {"wan21-i2v-14b-720p"}, 24.65),
        ({"WAN_720P": "true", "ENABLE_I2V": "true"}, {"wan21-t2v-14b", "wan21-i2v-14b-720p"}, 38.95),
        ({"ENABLE_WAN22_DISTILL": "true"}, {"wan22-i2v-a14b"}, 38.03),
        (
            {"ENABLE_WAN22_DISTILL": "true", "WAN22_DISTILL_VARIANT": "turbodiffusion"},
            {"wan22-i2v-turbodiffusion"},
            35.99,
        ),
        ({"ENABLE_WAN22_TI2V": "true"}, {"wan22-ti2v-5b"}, 18.14),
        ({"ENABLE_VACE": "true"}, {"vace-14b"}, 41.67),
        ({"ENABLE_FUN_INP": "true"}, {"fun-inp-14b"}, 35.58),
        ({"ENABLE_STEADYDANCER": "true"}, {"steadydancer"}, 30.18),
        ({"ENABLE_SCAIL": "true"}, {"scail"}, 30.65),
        ({"ENABLE_ILLUSTRIOUS": "true"}, {"illustrious", "illustrious-embeddings"}, 6.94),
        ({"ENABLE_ILLUSTRIOUS": "true", "ENABLE_ILLUSTRIOUS_EMBEDDINGS": "false"}, {"illustrious"}, 6.94),
        ({"ENABLE_ZIMAGE": "true"}, {"zimage-turbo"}, 20.69),
        ({"ENABLE_QWEN_EDIT": "true"}, {"qwen-edit-2511-Q4_K_M"}, 22.88),
        ({"ENABLE_QWEN_EDIT": "true", "QWEN_EDIT_MODEL": "full"}, {"qwen-edit-2511-full"}, 50.54),
        ({"ENABLE_GENFOCUS": "true"}, {"genfocus"}, 0.0),
        ({"ENABLE_MVINVERSE": "true"}, {"mvinverse"}, 4.06),
        ({"ENABLE_FLASHPORTRAIT": "true"}, {"flashportrait"}, 82.3),
        ({"ENABLE_STORYMEM": "true"}, {"storymem"}, 50.21),
        ({"ENABLE_INFCAM": "true", "GPU_TIER": "datacenter"}, {"infcam"}, 19.32),
        ({"ENABLE_XTTS": "true"}, set(), 0.0),
        ({"ENABLE_XTTS": "true", "COQUI_TOS_AGREED": "true"}, {"xtts-v2"}, 1.88),
        ({"ENABLE_CHATTERBOX": "true"}, {"chatterbox-multilingual"}, 3.24),
        ({"ENABLE_CHATTERBOX": "true", "CHATTERBOX_MODEL": "english"}, {"chatterbox"}, 3.19),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_each_toggle_asks_for_its_models_and_all_that_they_need(
    full: Catalogue, variables: dict[str, str], ids: set[str], gigabytes: float
) -> None:
    plan = planned(full, Host(tier=variables.get("GPU_TIER", "consumer")), **variables)
    assert {model.id for model in plan.models} == ids
    assert plan.fetch_bytes / GB == pytest.approx(gigabytes, abs=0.006)


def test_every_system_of_the_catalogue_says_what_loads_it_or_why_nothing_does(full: Catalogue) -> None:
    for model in full.models:
        assert bool(model.nodes) != bool(model.no_node), f"{model.id}: list the node classes that load it as `nodes`"
    assert not [model.id for model in full.models if model.no_node]


def test_the_wrappers_models_bring_the_poses_and_an_encoder_that_its_nodes_take(full: Catalogue) -> None:
    files = {file.id: file for file in full.files}
    for model in full.models:
        if "WanVideoModelLoader" in model.nodes:
            places = {files[name].to for name in model.files}
            assert not any("fp8" in place for place in places if place.startswith("text_encoders/")), model.id
            if "OnnxDetectionModelLoader" in model.nodes:
                assert {"detection/yolov10m.onnx", "detection/vitpose_h_wholebody_data.bin"} <= places, model.id
            assert any(place.startswith("nlf/") for place in places) is ("DownloadAndLoadNLFModel" in model.nodes)


def test_what_the_controlnets_steer_can_be_asked_for_and_is_then_not_asked_of_the_person(full: Catalogue) -> None:
    assert any("needs an SD 1.5 checkpoint" in note for note in planned(full, ENABLE_CONTROLNET="true").notes)
    with_it = planned(full, ENABLE_CONTROLNET="true", MODELS="sd15")
    assert not any("needs an SD 1.5 checkpoint" in note for note in with_it.notes)
    assert "checkpoints/v1-5-pruned-emaonly-fp16.safetensors" in {step.file.to for step in with_it.steps}


def test_what_may_not_be_passed_on_is_marked_for_the_cache(full: Catalogue) -> None:
    kept_out = {file.to.partition("/")[0] for file in full.files if file.no_mirror}
    assert kept_out == {"xtts", "diffusers"}
    assert all(file.no_mirror for file in full.files if file.gate and not isinstance(file.source, CivitAI))
    assert all(file.no_mirror for file in full.files if "Public Model License" in file.licence)


def test_every_model_that_a_toggle_asks_for_says_how_much_gpu_memory_it_wants(full: Catalogue) -> None:
    weights = {"controlnet", "embeddings"}
    files = {file.id: file for file in full.files}
    for model in full.models:
        if model.when and not weights & {files[name].to.partition("/")[0] for name in model.files}:
            assert model.vram_gb, f"{model.id}: give the GPU memory that it wants as `vram_gb`"


def test_the_shipped_lock_pins_every_confirmed_file_to_a_commit_and_says_what_the_catalogue_says(
    full: Catalogue,
) -> None:
    files = {file.id: file for file in full.files}
    found = lock.read(lock.place(FULL)).files
    assert set(found) <= set(files)
    for name, locked in found.items():
        assert re.fullmatch("[0-9a-f]{40}|", locked.revision), name
        assert (files[name].size, files[name].sha256) == (locked.size, locked.sha256), name
    # An address has no commit.
    confirmed = {f.id for f in full.files if f.sha256 and f.evidence == "confirmed" and f.source.kind != "url"}
    assert confirmed <= set(found)
    # Nobody has stated a commit of this repository.
    unpinned = {files[name].source.repo for name, locked in found.items() if not locked.revision}  # type: ignore[union-attr]
    assert unpinned == {"comfyanonymous/ControlNet-v1-1_fp16_safetensors"}


def test_every_file_is_needed_by_a_model(full: Catalogue) -> None:
    needed = {name for model in full.models for name in model.files}
    assert {file.id for file in full.files} == needed


def test_folders_beside_comfyuis_own_say_who_reads_them(full: Catalogue) -> None:
    used = {file.to.partition("/")[0] for file in full.files}
    assert used - COMFYUI_FOLDERS == {folder.name for folder in full.folders}


def test_gguf_files_lie_where_the_loader_looks(full: Catalogue) -> None:
    folders = {file.to.partition("/")[0] for file in full.files if file.to.endswith(".gguf")}
    assert folders == {"diffusion_models"}


def test_infcam_is_for_datacenter_cards_or_by_name(full: Catalogue) -> None:
    small = planned(full, Host(tier="consumer"), ENABLE_INFCAM="true")
    assert small.steps == ()
    assert any("infcam is not fetched: it is for tier datacenter" in note for note in small.notes)
    assert {m.id for m in planned(full, Host(tier="consumer"), MODELS="infcam").models} == {"infcam"}


@pytest.mark.parametrize(
    ("host", "variables", "words"),
    [
        (Host(vram_gb=12.0), {"WAN_720P": "true"}, "it does not fit on this GPU (least: 16 GB)"),
        (Host(vram_gb=16.0), {"WAN_720P": "true"}, "it runs with parts of it in RAM, slowly"),
        (Host(), {"ENABLE_ILLUSTRIOUS": "true"}, "CIVITAI_API_KEY is not set"),
        (
            Host(),
            {"MODELS": "flux1-dev"},
            "must be accepted at huggingface.co/black-forest-labs/FLUX.1-dev, and HF_TOKEN is not set",
        ),
        (
            Host(),
            {"ENABLE_XTTS": "true", "COQUI_TOS_AGREED": "true"},
            "not for commercial use (Coqui Public Model License",
        ),
        (
            Host(),
            {"ENABLE_STORYMEM": "true"},
            "not for commercial use (CC-BY-NC-4.0): loras/storymem/mi2v_high.safetensors",
        ),
        (Host(), {"MODELS": "infcam"}, "it has no licence: its authors keep all rights"),
        (Host(), {"ENABLE_FLASHPORTRAIT": "true"}, "72 GB of RAM free while its node loads"),
        (
            Host(),
            {"ENABLE_CONTROLNET": "true"},
            "controlnet-canny, controlnet-depth, controlnet-openpose: needs an SD 1.5 checkpoint",
        ),
        (Host(), {"WAN_720P": "true"}, "neither its hash nor its size is known"),
        (
            Host(),
            {"ENABLE_VIBEVOICE": "true"},
            "that the source has it (single evidence): vibevoice/tokenizer/merges.txt",
        ),
    ],
)
def test_what_a_person_should_know_is_said(full: Catalogue, host: Host, variables: dict[str, str], words: str) -> None:
    assert any(words in note for note in planned(full, host, **variables).notes)


@pytest.mark.parametrize(
    ("host", "variables", "words"),
    [
        (Host(vram_gb=23.5), {"WAN_720P": "true"}, "GPU memory"),
        (Host(civitai_key=True), {"ENABLE_ILLUSTRIOUS": "true"}, "CIVITAI_API_KEY"),
        (Host(hf_token=True), {"MODELS": "flux1-dev"}, "HF_TOKEN"),
    ],
)
def test_what_does_not_matter_is_not_said(full: Catalogue, host: Host, variables: dict[str, str], words: str) -> None:
    assert not any(words in note for note in planned(full, host, **variables).notes)


def test_shared_small_files_first_then_what_is_usable_soonest(full: Catalogue) -> None:
    plan = planned(full, WAN_480P="true", WAN_720P="true", ENABLE_ZIMAGE="true")
    order = [step.file.id for step in plan.steps]
    assert order[0] == "wan-2.1-vae"
    assert order.index("wan21-t2v-1.3b-fp16") < order.index("wan-umt5-xxl-fp8") < order.index("zimage-turbo-bf16")
    assert order[-1] == "wan21-t2v-14b-fp8"


# For any catalogue and any disk

IDS = st.sampled_from([f"f{n}" for n in range(8)])


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Catalogue, Disk]:
    files = []
    for id in draw(st.lists(IDS, min_size=1, unique=True)):
        exact = draw(st.booleans())
        facts = {"size": draw(st.integers(1, 5 * GB))} if exact else {"about": draw(st.none() | st.integers(1, 5 * GB))}
        if draw(st.integers(0, 4)) == 0:
            source: Snapshot | Web = Snapshot(repo="a/b")
            facts = {"about": draw(st.none() | st.integers(1, GB))}
        else:
            source = Web(url="http://x/y")
        sha256 = draw(st.sampled_from([None, "a" * 64, "b" * 64])) if isinstance(source, Web) else None
        files.append(File(id=id, source=source, to=f"vae/{id}", sha256=sha256, stated=draw(st.booleans()), **facts))
    names = [file.id for file in files]
    chosen = draw(st.lists(st.lists(st.sampled_from(names), min_size=1, unique=True), min_size=1, max_size=5))
    models = tuple(Model(id=f"m{n}", title="", files=tuple(picked)) for n, picked in enumerate(chosen))
    found, records, partial, listings = {}, {}, {}, {}
    for file in files:
        size = file.size or draw(st.integers(1, 5 * GB))
        if draw(st.booleans()):
            found[file.to] = Found(draw(st.sampled_from([size, size + 1])), draw(st.integers(0, 1)))
        if draw(st.booleans()):
            records[file.to] = Record(
                size,
                draw(st.integers(0, 1)),
                draw(st.sampled_from(["a" * 64, "b" * 64])),
                draw(st.sampled_from(["", "x"])),
            )
        if draw(st.booleans()):
            partial[file.id] = draw(st.integers(0, size))
        if isinstance(file.source, Snapshot) and draw(st.booleans()):
            count = draw(st.integers(1, 3))
            listings[file.id] = Listing(revision="c", parts=tuple(Part(path=f"p{n}", size=n + 1) for n in range(count)))
    catalogue = Catalogue(file=tuple(files), model=models)
    return catalogue, Disk(found, records, partial, listings, draw(st.integers(0, 20 * GB)))


@given(worlds())
def test_every_needed_file_has_one_step_and_no_other_has(world: tuple[Catalogue, Disk]) -> None:
    catalogue, seen = world
    plan = make_plan(catalogue, catalogue.models, seen, Host())
    ids = [step.file.id for step in plan.steps]
    assert len(ids) == len(set(ids))
    wanted = {name for model in catalogue.models for name in model.files}
    assert {name.partition("/")[0] for name in ids} == wanted
    for step in plan.steps:
        assert set(step.models) == {m.id for m in catalogue.models if step.file.id.partition("/")[0] in m.files}


@given(worlds())
def test_present_means_that_stat_and_record_and_catalogue_agree(world: tuple[Catalogue, Disk]) -> None:
    catalogue, seen = world
    for step in make_plan(catalogue, catalogue.models, seen, Host()).having("present"):
        found, record = seen.found[step.file.to], seen.records[step.file.to]
        assert (found.size, found.mtime_ns) == (record.size, record.mtime_ns)
        assert step.file.size in (None, found.size)
        assert step.file.sha256 in (None, record.sha256)
        assert step.file.sha256 or record.source or step.file.stated, "compared with its source"
        assert step.bytes == 0


@given(worlds())
def test_it_is_refused_exactly_when_it_does_not_fit(world: tuple[Catalogue, Disk]) -> None:
    catalogue, seen = world
    plan = make_plan(catalogue, catalogue.models, seen, Host())
    todo = plan.having("fetch", "list")
    fits = not todo or sum(step.bytes for step in todo) + MARGIN_BYTES <= seen.free_bytes
    try:
        check_space(plan, "/m")
        refused = False
    except DiskTooSmallError:
        refused = True
    assert refused != fits


@given(worlds(), st.data())
def test_more_on_disk_never_means_more_to_fetch(world: tuple[Catalogue, Disk], data: st.DataObject) -> None:
    catalogue, seen = world
    plan = make_plan(catalogue, catalogue.models, seen, Host())
    arrived = data.draw(st.lists(st.sampled_from(plan.steps), unique_by=lambda step: step.file.id))
    found, records = dict(seen.found), dict(seen.records)
    for step in arrived:
        if step.action == "list":
            continue
        size = step.file.size or 7
        found[step.file.to] = Found(size, 5)
        records[step.file.to] = Record(size, 5, step.file.sha256 or "d" * 64, "its source")
    after = make_plan(catalogue, catalogue.models, replace(seen, found=found, records=records), Host())
    assert after.fetch_bytes <= plan.fetch_bytes
    assert {step.file.id for step in arrived if step.action != "list"} <= {s.file.id for s in after.having("present")}


@given(worlds())
def test_the_order_does_not_depend_on_the_order_of_models(world: tuple[Catalogue, Disk]) -> None:
    catalogue, seen = world
    one = make_plan(catalogue, catalogue.models, seen, Host())
    assert one == make_plan(catalogue, catalogue.models, seen, Host()), "and it is always the same"
    other = make_plan(catalogue, tuple(reversed(catalogue.models)), seen, Host())
    assert {step.file.id for step in one.steps} == {step.file.id for step in other.steps}
    assert one.fetch_bytes == other.fetch_bytes


def test_a_part_that_leads_out_of_its_folder_is_refused() -> None:
    for path in ("../x", "/etc/x", "a/../../x"):
        with pytest.raises(ValueError, match="leads out"):
            Part(path=path, size=1)


def test_a_locked_revision_is_shown_shortly() -> None:
    assert str(HuggingFace(repo="a/b", path="c", revision="0123456789abcdef")) == "a/b/c@0123456789ab"
