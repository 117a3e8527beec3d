"""Voices are kept whole, under names that lead nowhere else, and two changes at once are both right."""

import errno
import json
import os
import threading
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from hearmeman_voice import audio, names
from hearmeman_voice.voices import (
    BadName,
    BadSound,
    NameTaken,
    ReadOnlyVoice,
    UnknownVoice,
    VoiceStore,
    safe_child,
)
from support.waiting import PATIENCE

BAD_NAMES = [
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "a\\b",
    "a\0b",
    "x" * 300,
    "🎉",
    "-x",
    ".hidden",
    "default",
    "Default",
    "a\nb",
    "\ud800",
    "x.",
]


def clip(seconds: float = 2.0, rate: int = 44100, pitch: float = 0.05) -> bytes:
    return audio.wav((0.3 * np.sin(np.arange(int(seconds * rate)) * pitch)).astype(np.float32), rate)


@pytest.fixture
def store(tmp_path: Path) -> VoiceStore:
    builtin = tmp_path / "builtin"
    builtin.mkdir()
    for name in ("calm_female", "female", "male"):
        (builtin / f"{name}.wav").write_bytes(clip())
    return VoiceStore(tmp_path / "voices", builtin)


def files(store: VoiceStore) -> set[str]:
    return (
        {path.name for path in store.folder.iterdir() if not path.name.startswith(".voices.")}
        if store.folder.exists()
        else set()
    )


def test_an_uploaded_voice_is_there_for_another_process(store: VoiceStore) -> None:
    added = store.add("Anna Lee", clip(), "de")
    found = VoiceStore(store.folder).get("Anna Lee")
    assert found == added and found.language == "de"
    assert found.clip is not None and audio.decode(found.clip)[1] == 44100


@pytest.mark.parametrize("name", BAD_NAMES, ids=range(len(BAD_NAMES)))
def test_a_bad_name_is_refused_and_nothing_is_written(store: VoiceStore, name: str) -> None:
    with pytest.raises(BadName):
        store.add(name, clip())
    with pytest.raises(UnknownVoice):
        store.get(f"../{name}" if name.lower() in ("default", "x.") else name)
    assert files(store) == set()


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        ("x" * 81, "x" * 80),
        ("日" * 81, "日" * 80),
        ("a/b", "a (b) - @home_1.5 o'neil"),
        ("-9 lives", "9 lives-"),
        ("x.", "x.y"),
        ("🎉", "हिन्दी आवाज़"),
        ("Default", "Default one"),
    ],
    ids=range(7),
)
def test_a_name_that_is_refused_is_chosen_as_the_error_says(store: VoiceStore, bad: str, good: str) -> None:
    says = r"use up to 80 letters, digits, spaces and \. _ - @ \( \) ', with a letter or digit first and no dot last"
    with pytest.raises(BadName, match=says):
        store.add(bad, clip())
    assert store.add(good, clip()).id == unicodedata.normalize("NFC", good)
    assert files(store) == {f"{unicodedata.normalize('NFC', good)}.wav"}


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/etc/passwd", "a\0", "x" * 249, "\ud800"], ids=range(8))
def test_a_child_is_in_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadName):
        safe_child(tmp_path, name)


def test_a_link_is_no_child(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(BadName):
        safe_child(tmp_path, "link")


def test_a_link_in_the_folder_is_no_voice(store: VoiceStore) -> None:
    store.add("anna", clip())
    (store.folder / "other.wav").symlink_to("/etc/passwd")
    assert [voice.id for voice in store.uploaded()] == ["anna"]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not a recording"),
        (b"MZ" + bytes(9000), "not a recording"),
        (clip(0.1), "at least"),
        (bytes(60_000_000), "MB"),
        (clip(pitch=0), "silent"),
    ],
    ids=["empty", "exe", "short", "huge", "silent"],
)
def test_what_is_no_recording_is_refused_and_nothing_is_written(store: VoiceStore, data: bytes, why: str) -> None:
    with pytest.raises(BadSound, match=why):
        store.add("anna", data)
    assert files(store) == set()


def test_of_two_uploads_of_one_name_at_once_one_is_refused(store: VoiceStore) -> None:
    stores = [store, *(VoiceStore(store.folder) for _ in range(3))]
    gate, results = threading.Barrier(len(stores)), []

    def upload(one: VoiceStore, pitch: float) -> None:
        gate.wait()
        try:
            one.add("anna", clip(pitch=pitch))
            results.append("kept")
        except NameTaken:
            results.append("refused")

    threads = [threading.Thread(target=upload, args=(one, 0.05 + index / 100)) for index, one in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(results) == ["kept", "refused", "refused", "refused"]
    assert files(store) == {"anna.wav"}


def test_changes_of_two_processes_at_once_are_all_kept(store: VoiceStore) -> None:
    sound = clip(1.0, 8000)
    stores = [VoiceStore(store.folder) for _ in range(4)]
    threads = [
        threading.Thread(
            target=lambda one=one, number=number: [one.add(f"v{number}{index}", sound, "fr") for index in range(3)]
        )
        for number, one in enumerate(stores)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert {voice.language for voice in store.uploaded()} == {"fr"} and len(store.uploaded()) == 12


def test_a_full_disk_leaves_the_old_voice_as_it_was(store: VoiceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add("anna", clip(), "en")
    before = (store.folder / "anna.wav").read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="space"):
        store.change("anna", clip(3))
    with pytest.raises(OSError, match="space"):
        store.add("bert", clip())
    assert (store.folder / "anna.wav").read_bytes() == before
    assert files(store) == {"anna.wav"}


@pytest.mark.parametrize(
    ("data", "new", "error"),
    [(clip(0.1), "berta", BadSound), (clip(3), "a/b", BadName), (clip(3), "male", NameTaken)],
    ids=["short", "bad name", "taken"],
)
def test_a_change_of_which_a_part_is_refused_changes_nothing(
    store: VoiceStore, data: bytes, new: str, error: type[Exception]
) -> None:
    store.add("anna", clip(), "de")
    before = (store.folder / "anna.wav").read_bytes()
    with pytest.raises(error):
        store.change("anna", data, new, "fr")
    assert (store.folder / "anna.wav").read_bytes() == before
    assert files(store) == {"anna.wav"} and store.get("anna").language == "de"


def test_a_voice_can_be_given_all_at_once(store: VoiceStore) -> None:
    store.add("anna", clip(), "de")
    store.add_alias("anna", "narrator")
    store.default = "anna"
    assert store.change("anna", clip(3), "berta", "fr") == store.get("berta") == store.get("default")
    assert files(store) == {"berta.wav"} and store.get("narrator").language == "fr"
    assert (store.folder / "berta.wav").read_bytes() == clip(3)
    assert store.change("berta", new="narrator").language == "fr"
    assert "narrator" not in store.aliases() and files(store) == {"narrator.wav"}
    assert store.change("narrator", language="en").language == store.get("narrator").language == "en"


def test_what_a_killed_process_has_left_is_gone_after_a_day(store: VoiceStore) -> None:
    store.add("anna", clip())
    old, new = (store.folder / f".voice-{name}.part" for name in ("old", "new"))
    for part in (old, new):
        part.write_bytes(b"half")
    os.utime(old, (1, 1))
    assert [voice.id for voice in VoiceStore(store.folder).uploaded()] == ["anna"]
    assert not old.exists() and new.exists()


def test_openai_names_speak(store: VoiceStore) -> None:
    assert len(names.OPENAI) == 13
    assert {store.get(name).id for name in names.OPENAI} == {"male", "female", "calm_female"}


def test_a_voice_may_take_the_place_of_an_openai_name(store: VoiceStore) -> None:
    store.add("alloy", clip())
    assert store.get("alloy").clip == store.folder / "alloy.wav"


def test_the_default_is_what_was_chosen_until_it_is_gone(store: VoiceStore) -> None:
    assert store.default == "female"
    store.add("anna", clip())
    store.default = "anna"
    assert store.get("default").id == "anna"
    store.delete("anna")
    assert store.get("default").id == "female"


def test_an_alias_goes_with_its_voice(store: VoiceStore) -> None:
    store.add("anna", clip())
    store.add_alias("anna", "narrator")
    assert store.change("anna", new="berta").id == store.get("narrator").id == "berta"
    with pytest.raises(NameTaken):
        store.add_alias("berta", "male")
    store.delete("berta")
    with pytest.raises(UnknownVoice):
        store.get("narrator")


def test_voices_of_the_image_stay(store: VoiceStore) -> None:
    for change in (
        lambda: store.delete("male"),
        lambda: store.change("male", clip()),
        lambda: store.change("male", new="x"),
    ):
        with pytest.raises(ReadOnlyVoice):
            change()
    with pytest.raises(NameTaken):
        store.add("male", clip())


@pytest.mark.parametrize(
    "notes",
    ['{"voices": ', "[]", '{"voices": [], "aliases": null, "default": {}}', '{"aliases": {"x": []}, "default": 5}'],
)
def test_damaged_notes_cost_no_voice(store: VoiceStore, notes: str) -> None:
    store.add("anna", clip(), "de")
    (store.folder / ".voices.json").write_text(notes)
    assert store.get("anna").language is None and store.get("default").id == "female"
    with pytest.raises(UnknownVoice):
        store.get("x")
    store.add("bert", clip(), "fr")
    assert json.loads((store.folder / ".voices.json").read_text())["voices"] == {"bert": "fr"}
