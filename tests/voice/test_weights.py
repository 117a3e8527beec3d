"""What the fetch brings for a voice engine is what the engine reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hearmeman.models.catalogue import read
from hearmeman_voice.engine import Request, Voice
from hearmeman_voice.engines import chatterbox, xtts
from hearmeman_voice.refusals import Refused
from support.repository import ROOT

CATALOGUE = read(ROOT / "python/hearmeman/models/catalogue.toml")


@pytest.mark.parametrize(
    ("model", "folder", "files"),
    [
        ("chatterbox-multilingual", "chatterbox", (*chatterbox.FILES["multilingual"], chatterbox.SEGMENTER)),
        ("chatterbox", "chatterbox", chatterbox.FILES["english"]),
        ("xtts-v2", "xtts/v2", xtts.FILES),
    ],
)
def test_the_catalogue_brings_what_the_engine_reads(model: str, folder: str, files: tuple[str, ...]) -> None:
    places = {file.id: file.to for file in CATALOGUE.files}
    wanted = next(one for one in CATALOGUE.models if one.id == model)
    assert {places[name] for name in wanted.files} == {f"{folder}/{name}" for name in files}


def test_xtts_is_there_once_its_licence_is_accepted_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COQUI_TOS_AGREED", raising=False)
    for name in xtts.FILES:
        (tmp_path / "xtts/v2").mkdir(parents=True, exist_ok=True)
        (tmp_path / "xtts/v2" / name).touch()
    engine = xtts.Xtts(tmp_path)
    [(name, value)] = re.findall(r"set (\w+)=(\w+)$", engine.missing() or "")
    monkeypatch.setenv(name, value)
    assert engine.missing() is None


def test_an_engine_finds_its_files_where_the_fetch_puts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COQUI_TOS_AGREED", "1")
    engines = (chatterbox.Chatterbox(tmp_path), chatterbox.Chatterbox(tmp_path, "english"), xtts.Xtts(tmp_path))
    assert all(engine.missing() for engine in engines)
    for file in CATALOGUE.files:
        if file.to.split("/")[0] in ("chatterbox", "xtts"):
            (tmp_path / file.to).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file.to).touch()
    assert [engine.missing() for engine in engines] == [None, None, None]


def test_chinese_without_its_segmenter_is_one_clear_refusal_and_no_download(tmp_path: Path) -> None:
    engine = chatterbox.Chatterbox(tmp_path)
    with pytest.raises(Refused, match=r"spacy_ontonotes\.zip, which is not in .*`hearmeman models fetch` fetches it"):
        next(engine.synthesize(Request("你好。", Voice("female"), language="zh")))
