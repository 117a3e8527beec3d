"""What sources state about files: asked for without fetching, compared with what is there, kept on the volume."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import PurePosixPath

from hearmeman.models.catalogue import CivitAI, File
from hearmeman.models.errors import FetchError
from hearmeman.models.lock import Locked, is_pinned, with_statement
from hearmeman.models.remote import Remote
from hearmeman.models.sources import Sources
from hearmeman.models.store import Store


class Statements:
    """The statements on one volume, and the sources that make them."""

    def __init__(self, store: Store, sources: Sources) -> None:
        self.store, self.sources = store, sources

    def ask(self, file: File) -> Locked:
        """Ask a file's source for revision, size, hash and name; raises like `Sources.resolve`."""
        remote = self.sources.resolve(file)
        if remote.size is None and not isinstance(file.source, CivitAI):
            # No one states it, so the first byte is asked for: the answer names the whole.
            answer = self.sources.http.open(remote, (0, 1), file.to)
            answer.response.close()
            remote = dataclasses.replace(remote, size=answer.total)
        return _kept(file, remote)

    def learn(self, file: File) -> File:
        """Give a file with what its source states, which is asked once and kept; raises like `Sources.resolve`."""
        if file.sha256 or file.blob or file.stated:
            return file
        stated = self.ask(file)
        self._note(file, stated)
        return with_statement(file, stated)

    def name(self, file: File) -> None:
        """Ask for the name of a file that only its source knows, and keep it; raises like `Sources.resolve`.

        Raises:
            OSError: it cannot be kept.
        """
        stated = self.ask(file)
        place = PurePosixPath(stated.name)
        folder = file.id.rpartition("@")[2]
        if not stated.name or place.name != stated.name or stated.name.startswith("."):
            raise FetchError(
                f"its source names it {stated.name!r}, which is not a valid file name:"
                f" give it one, @{folder}/NAME.safetensors"
            )
        used = {
            found.name.casefold()
            for name, found in self.store.read_stated().items()
            if name != file.id and name.rpartition("@")[2] == folder
        }
        if stated.name.casefold() in used:
            mark = PurePosixPath(file.to).name
            stated = stated.model_copy(update={"name": f"{place.stem}.{mark}{place.suffix}"})
        self.store.note_stated(file, stated)

    def heard(self, file: File, remote: Remote) -> None:
        """Keep what a source stated when it was asked for a file's address."""
        stated = _kept(file, remote)
        if not is_pinned(file) and (stated.revision or stated.sha256 or stated.blob or stated.size is not None):
            self._note(file, stated)

    def placed(self, file: File, digest: str, size: int) -> None:
        """Keep the hash of a file that was fetched and found whole, so that a later fetch must give the same."""
        if is_pinned(file):
            return
        before = self.store.read_stated().get(file.id)
        if before is None or before.source != str(file.source):
            before = Locked(source=str(file.source))
        self._note(file, before.model_copy(update={"sha256": digest, "size": size}))

    def keep(self, file: File, stated: Locked) -> None:
        """Keep a statement for later starts and other pods.

        Raises:
            OSError: it cannot be kept.
        """
        self.store.note_stated(file, stated)

    def _note(self, file: File, stated: Locked) -> None:
        # The file is right even if a full disk keeps us from noting it.
        with contextlib.suppress(OSError):
            self.store.note_stated(file, stated)


def _kept(file: File, remote: Remote) -> Locked:
    return Locked(
        revision=remote.revision,
        size=remote.size,
        sha256=remote.sha256,
        blob=remote.blob,
        name=remote.name if file.unnamed else "",
        source=str(file.source),
    )
