"""Workflows against ComfyUI's nodes and the catalogue: all fit, and each kind of mistake is found and explained."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearmeman.cli import main
from hearmeman.errors import UsageError
from hearmeman.models import catalogue
from hearmeman.models.context import make_context
from hearmeman.workflows import check, library, prepare, schema
from support.media import film, picture, sound
from support.repository import ROOT

FOLDER = ROOT / "workflows"
WORKFLOWS = library.load(FOLDER)
SCHEMA = schema.read(FOLDER / schema.FILE)
CATALOGUE = catalogue.read(Path(catalogue.__file__).with_name("catalogue.toml"))

NO_GRAPH_YET = {
    "ENABLE_ILLUSTRIOUS_EMBEDDINGS",
}
"""Toggles that no workflow serves; the embeddings are named in a prompt, the rest are research systems."""


def test_every_workflow_with_every_choice_fits_the_nodes_and_the_files() -> None:
    found = check.problems(WORKFLOWS, SCHEMA, CATALOGUE)
    assert found == [], "a class that is new in the image is recorded by `make image-check TIER=consumer WRITE=1`"


@pytest.mark.parametrize("name", ["steadydancer", "qwen-image-edit"])
def test_a_file_that_comfyui_does_not_list_where_it_lies_is_a_mistake(name: str) -> None:
    ends = dict.fromkeys(SCHEMA.extensions, (".safetensors",))
    found = check.problems({name: WORKFLOWS[name]}, dataclasses.replace(SCHEMA, extensions=ends), CATALOGUE)
    wrong = any("yolov10m.onnx: ComfyUI lists only .safetensors in models/detection" in text for text in found)
    # A loader of GGUF files lists them by itself.
    assert (bool(found), wrong) == ((name == "steadydancer"),) * 2


def test_a_toggle_without_a_workflow_is_known_to_be_one() -> None:
    assert set(check.toggles_without(WORKFLOWS, CATALOGUE)) == NO_GRAPH_YET


def test_one_word_means_one_thing_in_all_workflows() -> None:
    words: dict[str, set[str]] = {}
    for workflow in WORKFLOWS.values():
        graph = library.graph(workflow)
        for key, parameter in workflow.inputs.items():
            node, name = parameter.places[0]
            words.setdefault(key, set()).add(schema.kind_of(SCHEMA.spec(graph[node]["class_type"], name)))
            assert parameter.help, f"{workflow.name}: {key} has no help"
    assert {key: kinds for key, kinds in words.items() if len(kinds) > 1 and key != "fps" and key != "steps"} == {}


def broken(change: Any) -> list[str]:
    graph = copy.deepcopy(library.graph(WORKFLOWS["wan21-t2v-1.3b"]))
    change(graph)
    files = check.files_of(CATALOGUE, ("wan21-t2v-1.3b",))
    return [str(mistake) for mistake in schema.mistakes(graph, SCHEMA, files)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda g: g["sampler"].update(class_type="KSampeler"), "did you mean KSampler"),
        (lambda g: g["sampler"]["inputs"].pop("seed"), "KSampler needs this input"),
        (lambda g: g["sampler"]["inputs"].update(speed=3), "has no such input; it has"),
        (lambda g: g["sampler"]["inputs"].update(model=["gone", 0]), "linked to node gone"),
        (lambda g: g["sampler"]["inputs"].update(model=["shift", 1]), "output 1 of ModelSamplingSD3, which has 1"),
        (lambda g: g["sampler"]["inputs"].update(model=["clip", 0]), "it takes MODEL, and output 0 of CLIPLoader"),
        (lambda g: g["sampler"]["inputs"].update(sampler_name="unipc"), "nearest are uni_pc"),
        (lambda g: g["sampler"]["inputs"].update(steps=0), "0 is not within 1 to 10000"),
        (lambda g: g["sampler"]["inputs"].update(steps=2.5), "whole number"),
        (lambda g: g["sampler"]["inputs"].update(cfg=True), "takes a number"),
        (lambda g: g["latent"]["inputs"].update(length=32), "32 is not 4n+1; the nearest are 29 and 33"),
        (lambda g: g["latent"]["inputs"].update(width=830), "a multiple of 16; the nearest are 816 and 832"),
        (lambda g: g["unet"]["inputs"].update(unet_name="other.safetensors"), "looks in models/unet and "
            "models/diffusion_models"),
        (lambda g: g["vae"]["inputs"].update(vae_name="umt5_xxl_fp8_e4m3fn_scaled.safetensors"), "fetched to "
            "models/text_encoders/"),
        (lambda g: g["save"]["inputs"].update(format="video/mp4"), "nearest are"),
        (lambda g: g["positive"]["inputs"].update(text=7), "takes a text"),
    ],
)  # fmt: skip
def test_a_mistake_is_found_and_says_what_is_allowed(change: Any, words: str) -> None:
    found = broken(change)
    assert any(words in text for text in found), found


@given(st.sampled_from(sorted(SCHEMA.nodes)), st.integers(-(10**6), 10**6))
def test_a_number_is_taken_only_within_its_range_and_step(class_type: str, value: int) -> None:
    declared = SCHEMA.nodes[class_type]["inputs"]
    for spec in [*declared.get("required", {}).values(), *declared.get("optional", {}).values()]:
        if schema.kind_of(spec) == "INT":
            low, high, _ = schema.range_of(spec)
            inside = (low is None or value >= low) and (high is None or value <= high)
            assert inside or schema.out_of_range(value, spec)


@pytest.mark.parametrize("name", sorted(WORKFLOWS))
def test_every_default_can_be_set_as_a_person_would_type_it(name: str) -> None:
    workflow = WORKFLOWS[name]
    graph = library.graph(workflow)
    for key, parameter in workflow.inputs.items():
        node, input_name = parameter.places[0]
        value = graph[node]["inputs"][input_name]
        again = library.apply(workflow, graph, [f"{key}={str(value).lower() if isinstance(value, bool) else value}"])
        kept = again[node]["inputs"][input_name]
        assert kept == value or math.isclose(float(kept), float(value))


def test_the_pods_variable_chooses_the_variant_that_is_there() -> None:
    workflow = WORKFLOWS["qwen-image-edit"]
    assert library.chosen(workflow, [], {"QWEN_EDIT_MODEL": "q8_0"})["model"] == "Q8_0"
    assert workflow.needs({"model": "fp8", "speed": "4steps"}) == ("qwen-edit-2511-fp8", "qwen-edit-2511-lightning")


def test_the_short_run_puts_its_loras_between(tmp_path: Path) -> None:
    image = picture(tmp_path)
    workflow = WORKFLOWS["wan22-i2v"]
    full, _ = prepared("wan22-i2v", f"image={image}")
    short, files = prepared("wan22-i2v", "speed=4steps", f"image={image}")
    assert "lora_high" not in full and short["shift_high"]["inputs"]["model"] == ["lora_high", 0]
    assert (short["sampler_low"]["inputs"]["start_at_step"], short["sampler_low"]["inputs"]["steps"]) == (2, 4)
    assert files == {("image", "image"): image}
    assert library.graph(workflow)["shift_high"]["inputs"]["model"] == ["unet_high", 0]


def prepared(name: str, *settings: str) -> tuple[library.Graph, dict[tuple[str, str], Path]]:
    return prepare.prepared(WORKFLOWS[name], [*settings], FOLDER, {})


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("wan22-i2v", (), "needs --set image=FILE"),
        ("wan22-i2v", ("image=/nowhere.png",), "there is no such file"),
        ("wan22-i2v", ("speed=fast",), "it takes full or 4steps"),
        ("wan22-ti2v-5b", (f"image={FOLDER / 'index.toml'}",), "has no effect with from=text"),
        ("wan21-t2v-14b", ("frames=80",), "80 is not 4n\\+1; the nearest are 77 and 81"),
        ("wan21-t2v-14b", ("promt=x",), "did you mean prompt"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_sent(name: str, settings: tuple[str, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        prepared(name, *settings)


def test_show_says_what_one_takes_and_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environ = {"VOLUME_DIR": str(tmp_path), "MODEL_CATALOGUE": catalogue.__file__.replace(".py", ".toml")}
    assert main(["workflows", "show", "vace-inpaint", "--dir", str(FOLDER)], environ) == 0
    said = capsys.readouterr().out
    assert "hearmeman models fetch vace-14b" in said and "--set" in said
    assert max(map(len, said.splitlines())) <= 120
    assert main(["workflows", "show", "vace-inpaint", "--json", "--dir", str(FOLDER)], environ) == 0
    assert json.loads(capsys.readouterr().out)["missing"] == ["vace-14b"]


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_lists_and_what_one_takes_fit(
    columns: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    environ = {"VOLUME_DIR": str(tmp_path), "MODEL_CATALOGUE": catalogue.__file__.replace(".py", ".toml")}
    for words in (["list"], ["show", "z-image-turbo"], ["show", "vace-inpaint"]):
        assert main(["workflows", *words, "--dir", str(FOLDER)], environ) == 0
        said = capsys.readouterr().out.splitlines()
        assert len(said) > 10
        # A command that is there to be copied stays in one line.
        assert [line for line in said if len(line) > columns and not line.startswith("run: ")] == []


@pytest.mark.parametrize("name", sorted(WORKFLOWS))
def test_the_command_that_show_ends_with_is_one_that_is_taken(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {"VOLUME_DIR": str(tmp_path), "MODEL_CATALOGUE": catalogue.__file__.replace(".py", ".toml")}
    assert main(["workflows", "show", name, "--dir", str(FOLDER)], environ) == 0
    words = capsys.readouterr().out.splitlines()[-1].removeprefix("run: hearmeman workflows run ").split()
    made = {"picture": picture, "video": film, "sound": sound}
    graph, given = library.graph(WORKFLOWS[name]), []
    for setting in words[2::2]:
        key = setting.partition("=")[0]
        node = WORKFLOWS[name].inputs[key].places[0][0]
        given.append(f"{key}={made[prepare.kind_of_file(graph[node]['class_type'])](tmp_path)}")
    assert words[0] == name and prepare.prepared(WORKFLOWS[name], given, FOLDER, environ)


def test_check_ends_with_one_where_a_graph_does_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in FOLDER.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    environ = {"MODEL_CATALOGUE": catalogue.__file__.replace(".py", ".toml")}
    assert main(["workflows", "check", "--dir", str(tmp_path)], environ) == 0
    graph = json.loads((tmp_path / "vace-t2v.json").read_text())
    graph["sampler"]["inputs"]["scheduler"] = "simpel"
    (tmp_path / "vace-t2v.json").write_text(json.dumps(graph))
    assert main(["workflows", "check", "--dir", str(tmp_path)], environ) == 1
    assert "vace-t2v speed=full: node sampler, scheduler: 'simpel'" in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(WORKFLOWS))
def test_the_variables_that_the_table_names_fetch_all_that_a_workflow_loads(name: str, tmp_path: Path) -> None:
    """Every graph has a toggle, and what that fetches satisfies it, with each of its choices."""
    workflow = WORKFLOWS[name]
    environ = {"VOLUME_DIR": str(tmp_path), "MODEL_CATALOGUE": catalogue.__file__.replace(".py", ".toml")}
    known = {model.id: model for model in CATALOGUE.models}
    for options in check.combinations(workflow):
        needs = workflow.needs(options)
        asked = {variable: value for model in needs for variable, value in known[model].when.items()}
        asked["MODELS"] = ",".join(model for model in needs if not known[model].when)
        planned = make_context({**environ, **asked}).plan()
        assert set(needs) <= {model for step in planned.having("fetch", "list") for model in step.models}, options
