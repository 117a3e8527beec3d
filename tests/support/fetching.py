"""A models folder, a catalogue made by the test, and `hearmeman models` run on them, here or as a process of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hearmeman import cli
from hearmeman.users import COMFYUI, FETCH, STATE_GID, wrapped
from support.repository import ROOT


@dataclass(frozen=True)
class Done:
    """What a run left."""

    code: int
    out: str
    err: str


@dataclass
class Case:
    """One volume and what is to be fetched onto it; every file is a model of its own."""

    volume: Path
    variables: dict[str, str] = field(default_factory=dict)
    files: list[dict[str, Any]] = field(default_factory=list)
    models: list[dict[str, Any]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """The models folder."""
        return self.volume / "ComfyUI/models"

    def add(self, id: str, source: Mapping[str, Any], to: str = "", **facts: Any) -> Path:
        """Add a file; its place."""
        place = to or f"checkpoints/{id}.bin"
        self.files.append({"id": id, "to": place, "source": dict(source), **facts})
        self.models.append({"id": id, "title": id, "files": [id]})
        return self.folder / place

    def environ(self, **variables: str) -> dict[str, str]:
        """The run's variables; the catalogue is written."""
        catalogue = self.volume / "catalogue.toml"
        tables = [_table("file", one) for one in self.files] + [_table("model", one) for one in self.models]
        catalogue.write_text("\n".join(tables), encoding="utf-8")
        catalogue.chmod(0o644)
        return {
            "VOLUME_DIR": str(self.volume),
            "MODEL_CATALOGUE": str(catalogue),
            "MODELS": ",".join(model["id"] for model in self.models),
            # On a busy machine nothing may arrive for a while: a test in which a file is given up says when.
            "DOWNLOAD_TIMEOUT": "20",
            "ENABLE_CONTROLNET": "false",
            **self.variables,
            **variables,
        }

    def run(self, *words: str, **variables: str) -> Done:
        """Run the command in this process."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.main(["models", *words], self.environ(**variables))
        return Done(code, out.getvalue(), err.getvalue())

    def start(self, *words: str, before: tuple[str, ...] = (), **variables: str) -> subprocess.Popen[str]:
        """Start the command as a process of its own, as boot does."""
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.volume),
            "PYTHONPATH": str(ROOT / "python"),
            "PYTHONDONTWRITEBYTECODE": "1",
            **self.environ(**variables),
        }
        return subprocess.Popen(
            [*before, sys.executable, "-m", "hearmeman", "models", *words],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            umask=FETCH.umask,
        )

    def as_in_pod(self) -> tuple[str, ...]:
        """Give the folders the owners that boot gives them; what to put before a command so that the fetch's user runs it.

        A plain user stays who it is.
        """
        state = self.volume / ".hearmeman/local"
        for folder in (self.folder, state):
            folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() != 0:
            return ()
        for path in (self.folder, *self.folder.rglob("*")):
            give_to_fetch(path)
        os.chown(state, 0, STATE_GID)
        state.chmod(0o2775)
        self.volume.chmod(0o755)
        return wrapped((), FETCH)

    def state(self) -> dict[str, Any]:
        """The state file."""
        found: dict[str, Any] = json.loads((self.volume / ".hearmeman/local/models.json").read_text(encoding="utf-8"))
        return found


def give_to_fetch(path: Path) -> None:
    """Make a file or a folder what boot makes of those that the fetch's user writes: ComfyUI's, and open to its group."""
    if os.geteuid() == 0 and not path.is_symlink():
        os.chown(path, COMFYUI.uid, COMFYUI.gid)
        path.chmod(0o2775 if path.is_dir() else 0o664)


def _table(name: str, content: Mapping[str, Any]) -> str:
    # JSON's strings, numbers and arrays are TOML's too.
    plain = {key: value for key, value in content.items() if not isinstance(value, dict)}
    lines = [f"[[{name}]]", *(f"{key} = {json.dumps(value)}" for key, value in plain.items())]
    for key, value in content.items():
        if isinstance(value, dict):
            lines += [f"[{name}.{key}]", *(f"{k} = {json.dumps(v)}" for k, v in value.items())]
    return "\n".join(lines) + "\n"
