"""XTTS' studio speakers are offered by name once their file is there, which is read without torch and runs nothing."""

from __future__ import annotations

import collections
import os
import pickle
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest

from hearmeman_voice.engine import Request, Voice
from hearmeman_voice.engines.studio import names
from hearmeman_voice.engines.xtts import SPEAKERS, Xtts
from hearmeman_voice.refusals import Refused
from hearmeman_voice.voices import NameTaken, ReadOnlyVoice, VoiceStore
from support.voice import CLIENT

NAMES = ("Claribel Dervla", "Eugenio Mataracı", "Ana Florence")


class Tensor:
    """Pickled as torch pickles a tensor: its storage by a number, the rest by a call."""

    def __reduce__(self) -> Any:
        torch: Any = sys.modules["torch._utils"]
        return torch._rebuild_tensor_v2, (
            Storage(),
            0,
            (1, 32, 1024),
            (32768, 1024, 1),
            False,
            collections.OrderedDict(),
        )


class Storage:
    """What torch writes beside the pickle."""


class Pickler(pickle.Pickler):
    """Writes a storage as torch does."""

    def persistent_id(self, obj: Any) -> Any:
        return ("storage", "0", "cpu", 32768) if isinstance(obj, Storage) else None


def write(path: Path, what: object, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a file in the form of torch.save."""
    module = types.ModuleType("torch._utils")

    def _rebuild_tensor_v2(*_: object) -> None:
        raise AssertionError("reading names makes no tensor")

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    module._rebuild_tensor_v2 = _rebuild_tensor_v2  # type: ignore[attr-defined]
    path.parent.mkdir(parents=True, exist_ok=True)
    with monkeypatch.context() as patch, zipfile.ZipFile(path, "w") as archive:
        patch.setitem(sys.modules, "torch", types.ModuleType("torch"))
        patch.setitem(sys.modules, "torch._utils", module)
        with archive.open("speakers_xtts/data.pkl", "w") as file:
            Pickler(file, protocol=2).dump(what)
        archive.writestr("speakers_xtts/data/0", bytes(16))
    return path


def speakers() -> dict[str, object]:
    """What the file holds."""
    return {name: {"gpt_cond_latent": Tensor(), "speaker_embedding": Tensor()} for name in NAMES}


def test_the_speakers_are_offered_as_soon_as_their_file_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Xtts(tmp_path)
    store = VoiceStore(tmp_path / "voices", None, lambda: engine.voices)
    assert not store.list()
    write(tmp_path / "xtts" / "v2" / SPEAKERS, speakers(), monkeypatch)
    assert tuple(voice.id for voice in store.list()) == NAMES
    assert store.get(NAMES[1]) == Voice(NAMES[1])
    with pytest.raises(ReadOnlyVoice):
        store.delete(NAMES[1])
    with pytest.raises(NameTaken):
        store.add_alias(NAMES[0], NAMES[1])


def test_without_their_file_xtts_says_which_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COQUI_TOS_AGREED", "1")
    for name in ("config.json", "model.pth", "vocab.json"):
        (tmp_path / "xtts" / "v2").mkdir(parents=True, exist_ok=True)
        (tmp_path / "xtts" / "v2" / name).touch()
    assert (Xtts(tmp_path).missing() or "").startswith(f"XTTS v2's {SPEAKERS} not in")


def test_a_speaker_without_recording_is_refused_by_a_model_that_does_not_know_it(tmp_path: Path) -> None:
    for manager, says in ((None, f"{SPEAKERS} is not in"), (types.SimpleNamespace(speakers={}), "is not a speaker of")):
        engine = Xtts(tmp_path)
        engine.adopt(types.SimpleNamespace(speaker_manager=manager))
        with pytest.raises(Refused, match=says):
            engine._study(Request("Hi.", Voice("Ana Florence")).voice)


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def test_a_file_that_would_run_something_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "evil.pth", {"x": Evil(f"touch {tmp_path}/ran")}, monkeypatch)
    with pytest.raises(ValueError, match="does not belong there"):
        names(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 half", b"\x80\x02}q\x00."], ids=["empty", "half", "no ZIP"])
def test_a_damaged_file_costs_the_speakers_and_not_the_voices(tmp_path: Path, data: bytes) -> None:
    engine = Xtts(tmp_path)
    (tmp_path / "xtts" / "v2").mkdir(parents=True)
    (tmp_path / "xtts" / "v2" / SPEAKERS).write_bytes(data)
    with pytest.raises(ValueError, match="not a file of XTTS speakers"):
        names(tmp_path / "xtts" / "v2" / SPEAKERS)
    assert engine.voices == ()


def test_what_holds_no_names_is_no_file_of_speakers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for what in ([1], {1: 2}):
        with pytest.raises(ValueError, match="no names"):
            names(write(tmp_path / "x.pth", what, monkeypatch))


def test_every_speaker_can_be_heard_before_it_is_chosen(xtts: str) -> None:
    speakers = CLIENT.get(f"{xtts}/speakers").json()
    assert {"female", "heart"} <= {speaker["name"] for speaker in speakers}
    for speaker in speakers:
        assert CLIENT.get(speaker["preview_url"]).content[:4] == b"RIFF", speaker
