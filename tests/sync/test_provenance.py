"""An output can be made again: its object names a record of graph, image, models and inputs, and `rerun` follows it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.comfyui import ComfyUI, comfyui
from fakes.r2 import R2
from fakes.serving import Stored
from fakes.web import Web
from hearmeman.cli import main
from hearmeman.models.plan import Record
from hearmeman.models.store import Store
from hearmeman.sync import provenance
from hearmeman.workflows import provenance as made_of
from support.fetching import Case
from support.repository import ROOT
from support.sync_process import Sync

GRAPH = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sub/tiny.safetensors"}},
    "2": {"class_type": "LoraLoader", "inputs": {"lora_name": "mine.safetensors", "model": ["1", 0]}},
    "3": {"class_type": "VibeVoiceSingleSpeakerNode", "inputs": {"model": "VibeVoice-Large", "text": "a\nb/.."}},
    "4": {"class_type": "LoadImage", "inputs": {"image": "cat.png"}},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyUI]:
    with comfyui(tmp_path_factory.mktemp("comfyui")) as running:
        yield running


@pytest.fixture
def web() -> Iterator[Web]:
    with Web({"tiny.bin": Stored(b"right")}) as running:
        yield running


@pytest.fixture
def r2() -> Iterator[R2]:
    with R2() as bucket:
        yield bucket


def environ(r2: R2, server: ComfyUI, tmp_path: Path) -> dict[str, str]:
    return {
        **r2.environ(),
        "COMFYUI_PORT": str(server.port),
        "COMFYUI_OUTPUT_DIR": str(server.output),
        "VOLUME_DIR": str(tmp_path / "volume"),
        "MODEL_CATALOGUE": str(ROOT / "python/hearmeman/models/catalogue.toml"),
    }


def run(words: list[str], given: dict[str, str]) -> subprocess.CompletedProcess[str]:
    own = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "python"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "hearmeman", "workflows", *words, "--json"]
    command += ["--dir", str(ROOT / "workflows")] if words[0] == "run" else []
    return subprocess.run(command, env={**own, **given}, capture_output=True, text=True, timeout=120, check=False)


def note(store: Store, to: str, content: bytes) -> str:
    """Lay a model there as a fetch leaves it; its hash."""
    path = store.root / to
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    digest, seen = hashlib.sha256(content).hexdigest(), path.stat()
    store.records.mkdir(parents=True, exist_ok=True)
    record = {"size": seen.st_size, "mtime_ns": seen.st_mtime_ns, "sha256": digest, "source": "x"}
    (store.records / f"{to.replace('/', '%2F')}.json").write_text(json.dumps(record))
    return digest


def record_of(tmp_path: Path, graph: dict[str, Any]) -> dict[str, Any]:
    store = Store(tmp_path / "models")
    recorder = provenance.Recorder(
        lambda prompt_id: graph, store.read_records, store.root, tmp_path / "input", {"tier": "x"}
    )
    found = recorder.of("an-id")
    assert found is not None and hashlib.sha256(found.body).hexdigest() == found.sha256
    content: dict[str, Any] = json.loads(found.body)
    return content


def test_a_record_has_the_hashes_of_the_models_and_inputs_that_the_graph_names(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    tiny = note(store, "checkpoints/sub/tiny.safetensors", b"tiny")
    voice = note(store, "vibevoice/VibeVoice-Large/model.safetensors", b"voice")
    note(store, "checkpoints/another.safetensors", b"another")
    (tmp_path / "input").mkdir()
    (tmp_path / "input/cat.png").write_bytes(b"cat")
    found = record_of(tmp_path, GRAPH)
    assert found["graph"] == GRAPH and found["image"] == {"tier": "x"}
    assert found["models"] == [
        {"file": "checkpoints/sub/tiny.safetensors", "sha256": tiny},
        {"file": "mine.safetensors", "sha256": None},
        {"file": "vibevoice/VibeVoice-Large/model.safetensors", "sha256": voice},
    ]
    assert found["inputs"] == [{"file": "cat.png", "sha256": hashlib.sha256(b"cat").hexdigest()}]


def test_a_model_that_changed_since_it_was_verified_has_no_hash(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    note(store, "checkpoints/sub/tiny.safetensors", b"tiny")
    (store.root / "checkpoints/sub/tiny.safetensors").write_bytes(b"other")
    assert {"file": "checkpoints/sub/tiny.safetensors", "sha256": None} in record_of(tmp_path, GRAPH)["models"]


@pytest.mark.parametrize("name", ["link.png", "linked/secret", "../secret", "/secret", "pipe.png", "a\0b", "x" * 9000])
def test_an_input_that_is_no_plain_file_of_the_input_folder_is_not_read(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs, secret = tmp_path / "volume/ComfyUI/input", tmp_path / "volume/ComfyUI/secret"
    inputs.mkdir(parents=True)
    secret.write_bytes(b"secret")
    (inputs / "link.png").symlink_to(secret)
    (inputs / "linked").symlink_to(secret.parent)
    os.mkfifo(inputs / "pipe.png")
    (inputs / "cat.png").write_bytes(b"cat")
    used = {str(n): {"class_type": "LoadImage", "inputs": {"image": one}} for n, one in enumerate(("cat.png", name))}
    recorder = provenance.Recorder(lambda prompt_id: used, dict[str, Record], tmp_path, inputs, {})
    found = recorder.of("an-id")
    digest = hashlib.sha256(b"cat").hexdigest()
    assert found is not None and json.loads(found.body)["inputs"] == [{"file": "cat.png", "sha256": digest}]
    # What reads the record does not follow it either, though the hash be the right one.
    graph = json.loads((ROOT / "workflows/smoke-image.json").read_text())
    record = {"version": 1, "graph": graph, "image": {}, "models": []}
    record["inputs"] = [{"file": name, "sha256": hashlib.sha256(b"secret").hexdigest()}]
    (tmp_path / "record.json").write_text(json.dumps(record))
    given = {"VOLUME_DIR": str(tmp_path / "volume"), "MODEL_CATALOGUE": str(ROOT / "tests/smoke/catalogue.toml")}
    assert main(["workflows", "rerun", str(tmp_path / "record.json"), "--dry-run"], given) == 1
    assert f"the input {name} is missing" in capsys.readouterr().err


def test_no_graph_makes_no_record(tmp_path: Path) -> None:
    recorder = provenance.Recorder(lambda prompt_id: None, dict[str, Record], tmp_path, tmp_path, {})
    assert recorder.of("an-id") is None and recorder.of("") is None


def test_an_output_in_the_bucket_is_made_again(r2: R2, server: ComfyUI, tmp_path: Path) -> None:
    given = environ(r2, server, tmp_path)
    daemon = Sync(tmp_path, {**given, "IMAGE_DIGEST": "sha256:" + "1" * 64})
    daemon.output = server.output
    daemon.start()
    try:
        daemon.wait_said("sync.started")
        for color in (41, 42):
            done = run(["run", "smoke-image", "--set", f"color={color}", "--set", "count=2"], given)
            assert done.returncode == 0, done.stderr
        daemon.wait_for(lambda: len(r2.objects) == 6, "4 outputs and 2 records")
        assert daemon.stop() == 0
    finally:
        daemon.kill()
    outputs = sorted(key for key in r2.objects if key.endswith(".png"))
    records = {key for key in r2.objects if key.startswith("outputs/provenance/")}
    named = {f"outputs/provenance/{r2.objects[key].metadata['provenance']}.json" for key in outputs}
    assert named == records and len(records) == 2
    for key in records:
        assert provenance.key_of("outputs", hashlib.sha256(r2.contents()[key]).hexdigest()) == key
        assert json.loads(r2.contents()[key])["image"]["digest"] == "sha256:" + "1" * 64
    # Another ComfyUI, which has made nothing yet, makes the same pictures.
    with comfyui(tmp_path / "other") as other:
        again = {**given, "COMFYUI_PORT": str(other.port)}
        for output in (outputs[-1], f"s3://runpod/{outputs[-1]}"):
            done = run(["rerun", output, "--out", str(tmp_path / "again")], again)
            assert done.returncode == 0, done.stderr
            assert "workflow.image_differs" in done.stderr
        [first, *_] = sorted((tmp_path / "again").rglob("*.png"))
        assert first.read_bytes() in r2.contents().values()
        done = run(["rerun", str(first)], again)
        assert done.returncode == 0, done.stderr
    for output, said in (("outputs/nothing.png", "there is no object"), (str(ROOT / "README.md"), "does not say how")):
        done = run(["rerun", output], again)
        assert done.returncode == 1 and said in done.stderr
    damaged = next(iter(records))
    r2.objects.pop(damaged)
    r2.lay(damaged, b"{}")
    done = run(["rerun", damaged], again)
    assert done.returncode == 1 and "does not match its name" in done.stderr


def test_without_provenance_nothing_is_kept(r2: R2, server: ComfyUI, tmp_path: Path) -> None:
    given = environ(r2, server, tmp_path)
    daemon = Sync(tmp_path, {**given, "SYNC_PROVENANCE": "false", "R2_PREFIX": "other"})
    daemon.output = server.output
    daemon.start()
    try:
        daemon.wait_said("sync.started")
        assert run(["run", "smoke-image", "--set", "color=43"], given).returncode == 0
        daemon.wait_for(lambda: any("prompt-id" in one.metadata for one in list(r2.objects.values())), "the output")
        assert daemon.stop() == 0
    finally:
        daemon.kill()
    assert not [key for key in r2.objects if "/provenance/" in key]
    key = next(key for key, one in r2.objects.items() if "prompt-id" in one.metadata)
    done = run(["rerun", key], given)
    assert done.returncode == 1 and "SYNC_PROVENANCE was off" in done.stderr


@pytest.mark.parametrize("what", ["missing", "another", "input missing", "input another"])
def test_rerun_refuses_other_models_and_inputs(
    server: ComfyUI, web: Web, tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    case, volume = Case(tmp_path / "volume"), tmp_path / "volume/ComfyUI"
    case.volume.mkdir()
    source = {"kind": "url", "url": f"{web.url}/tiny.bin"}
    case.add("tiny", source, to="checkpoints/tiny.bin", size=5, sha256=hashlib.sha256(b"right").hexdigest())
    given = case.environ(MODELS="", COMFYUI_PORT=str(server.port))
    store = Store(volume / "models")
    name = "checkpoints/tiny.bin"
    wanted, picture = note(store, name, b"right"), hashlib.sha256(b"cat").hexdigest()
    (volume / "input").mkdir()
    (volume / "input/cat.png").write_bytes(b"cat")
    graph = json.loads((ROOT / "workflows/smoke-image.json").read_text())
    content = {"version": 1, "graph": graph, "image": {}, "models": [{"file": name, "sha256": wanted}]}
    content["inputs"] = [{"file": "cat.png", "sha256": picture}]
    (tmp_path / "record.json").write_text(json.dumps(content))
    words = ["workflows", "rerun", str(tmp_path / "record.json"), "--dry-run"]
    assert main(words, given) == 0
    if what == "missing":
        (store.root / name).unlink()
    elif what == "another":
        note(store, name, b"wrong")
    elif what == "input missing":
        (volume / "input/cat.png").unlink()
    else:
        (volume / "input/cat.png").write_bytes(b"dog")
    assert main(words, given) == 1
    said = capsys.readouterr().err
    assert {
        "missing": f"the model {name} is missing\nFetch: hearmeman models fetch tiny",
        "another": f"the model {name} is a different one: its sha256 is ",
        "input missing": "the input cat.png is missing: put it into ComfyUI's input folder",
        "input another": "the input cat.png is a different file",
    }[what] in said
    # What is advised is done.
    if what == "missing":
        assert case.run(*said.rpartition("hearmeman models ")[2].split(), MODELS="").code == 0
    elif what == "input missing":
        (volume / "input/cat.png").write_bytes(b"cat")
    assert main(words, given) == ("another" in what)


def test_the_graph_is_read_from_every_kind_of_text_in_a_png(tmp_path: Path) -> None:
    from zlib import compress

    from standin.png import SIGNATURE, chunk

    text = json.dumps(GRAPH).encode()
    for part in (
        chunk(b"tEXt", b"prompt\0" + text),
        chunk(b"zTXt", b"prompt\0\0" + compress(text)),
        chunk(b"iTXt", b"prompt\0\0\0en\0Prompt\0" + text),
        chunk(b"iTXt", b"prompt\0\1\0\0\0" + compress(text)),
    ):
        (tmp_path / "a.png").write_bytes(SIGNATURE + chunk(b"IHDR", bytes(13)) + part)
        assert made_of.from_file(tmp_path / "a.png").graph == GRAPH
        (tmp_path / "a.png").write_bytes((SIGNATURE + chunk(b"IHDR", bytes(13)) + part)[:-40])
        with pytest.raises(made_of.NoRecordError):
            made_of.from_file(tmp_path / "a.png")
