"""schemathesis against both voice APIs, from their own descriptions: nothing that is sent makes a 5xx or a file outside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.voice import CLIENT, voice_process

EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "50")
"""Requests of each kind that are made up for each address."""


@pytest.mark.parametrize("api", ["chatterbox", "xtts"])
def test_no_request_breaks_the_server(api: str, tmp_path: Path) -> None:
    folder = tmp_path / "pod"
    folder.mkdir()
    with voice_process(api, folder) as url:
        command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{url}/openapi.json"]
        command += ["--checks", "not_a_server_error,status_code_conformance,content_type_conformance"]
        command += ["--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES, "--request-timeout", "60"]
        done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-2000:]
        assert "passed" in done.stdout
        assert CLIENT.get(f"{url}/health").json()["status"] == "ready"
        assert CLIENT.post(f"{url}/v1/audio/speech", json={"input": "Well."}).content[:4] == b"RIFF"
    # What it works with is in its own folder; schemathesis keeps its notes in the one above.
    assert {path.name for path in tmp_path.iterdir()} <= {"pod", ".schemathesis", ".hypothesis"}
    kinds = {path.name for path in folder.iterdir()}
    assert kinds <= {"builtin", "voices", "output", "models", f"{api}.log"}
