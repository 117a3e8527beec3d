"""Secrets of this machine go nowhere: no request, no output, no line for another tool, no file."""

from __future__ import annotations

import json
import shutil

import pytest

from hearmeman.settings import SECRETS
from support.repository import ROOT

from .conftest import Operator

PLANTED = {name: f"planted-{name.lower()}-value" for name in sorted(SECRETS - {"RUNPOD_API_KEY"})}
NAMES = [word for name in PLANTED for word in ("--secret", name)]
SYNC = ["--set", "ENABLE_R2_SYNC=true", "--set", "R2_ENDPOINT=https://a.r2.example.com"]


@pytest.mark.parametrize(
    "words",
    [
        ["plan"],
        ["plan", "--json"],
        ["plan", "--as", "runpodctl"],
        ["plan", "--as", "skypilot"],
        ["plan", "--as", "dstack"],
        ["create"],
        ["create", "--json"],
        ["template"],
        ["endpoint", "plan"],
        ["endpoint", "create"],
        ["run", "smoke-image", "--out", "pictures", "--minutes", "0.02"],
    ],
    ids=" ".join,
)
def test_planted_secrets_appear_nowhere(operator: Operator, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "workflows", operator.root / "workflows")
    monkeypatch.chdir(operator.root)
    operator.more, operator.token = dict(PLANTED), PLANTED["ACCESS_TOKEN"]
    settings = [word.replace("--set", "--variable") for word in SYNC] if words[0] == "run" else SYNC
    _, out, err = operator(*words, "--name", "mine", *NAMES, *settings)
    sent = json.dumps(operator.runpod.requests)
    assert "RUNPOD_SECRET_" in out + sent or "secret" in out
    files = "".join(path.read_text(errors="replace") for path in operator.root.rglob("*.json*") if path.is_file())
    for name, value in PLANTED.items():
        assert value not in out + err + sent + files, name
