"""One pod's workspace: where it lies on the volume and in the bucket, and what this pod knows of the last save."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO

from hearmeman.settings import Settings
from hearmeman.state_file import read_json, write_json
from hearmeman.sync.bucket import Bucket
from hearmeman.workspace import added
from hearmeman.workspace.contents import FORMAT, Node, Save, SaveError, parse
from hearmeman.workspace.store import Store
from hearmeman.workspace.tops import Tops

CONNECTIONS = 12
ADDED = "workspace-added.json"
"""File in the state folder: the nodes and packages of the save that was restored."""


@dataclass(frozen=True)
class Space:
    """What saving and restoring have in common."""

    store: Store
    """Where it lies in the bucket."""
    comfyui: Path
    """ComfyUI's base directory."""
    volume: Path
    """The volume, where the voices lie."""
    overlays: Path
    """Where the packages lie that were added to ComfyUI."""
    state: Path
    """This pod's state folder."""
    pod: str
    """This pod's name."""

    @classmethod
    def of(cls, settings: Settings, bucket: Bucket | None = None) -> Space:
        """Make it from the settings, over a bucket that is used already or one of its own; nothing is sent yet.

        Raises:
            SettingsError: the bucket's address or a key is not set.
        """
        return cls(
            Store(bucket or Bucket(settings, CONNECTIONS), f"{settings.r2_prefix}/workspace"),
            Path(settings.comfyui_dir),
            Path(settings.volume_dir),
            Path(settings.own_path) / "overlays",
            Path(settings.state_path),
            settings.runpod_pod_id,
        )

    @property
    def address(self) -> str:
        """The workspace's place in the bucket, for people."""
        return f"s3://{self.store.bucket.name}/{self.store.prefix}"

    def tops(self) -> Tops:
        """Open the folders that are saved.

        Raises:
            OSError: the volume is not there.
        """
        return Tops(self.comfyui, self.volume)

    def added(self) -> tuple[Mapping[str, Node], Mapping[str, str]]:
        """Read which nodes and packages were added."""
        return added.nodes(self.comfyui), added.packages(self.overlays)

    def known(self) -> Save:
        """Read what was here when this pod last saved or restored; the empty save if it never did, or did it elsewhere."""
        try:
            raw = read_json(self.state / "workspace.json")
            if raw["of"] == self._of():
                return parse(json.dumps(raw["save"]).encode(), "workspace.json")
        except (ValueError, KeyError, TypeError, SaveError):
            pass  # Then nothing counts as removed here, and all files are read once more.
        return Save()

    def note(self, save: Save) -> None:
        """Keep what is here now.

        Raises:
            OSError: it cannot be written.
        """
        write_json(self.state / "workspace.json", {"of": self._of(), "save": {"version": FORMAT, **asdict(save)}})

    def _of(self) -> str:
        return f"{self.store.bucket.endpoint} {self.address} {self.comfyui}"

    def note_added(self, save: Save) -> None:
        """Keep the list of nodes and packages where `hearmeman nodes install` reads it.

        Raises:
            OSError: it cannot be written.
        """
        write_json(self.state / ADDED, {"version": FORMAT, **asdict(replace(save, files={}))})

    @contextlib.contextmanager
    def lock(self) -> Iterator[IO[str]]:
        """Wait until no other process of this pod saves or restores.

        Raises:
            OSError: the state folder cannot be written.
        """
        self.state.mkdir(parents=True, exist_ok=True)
        with (self.state / "workspace.lock").open("a", encoding="utf-8") as file:
            with contextlib.suppress(
                OSError
            ):  # Some network filesystems have no locks; the saves themselves stay whole.
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file
