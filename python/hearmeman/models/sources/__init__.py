"""Where files come from: each kind of source turns a catalogue's file into an address that serves its bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hearmeman.log import log
from hearmeman.models.catalogue import CivitAI, File, GitLFS, HuggingFace, Web
from hearmeman.models.errors import FetchError, NotFoundError, moved
from hearmeman.models.http import Http
from hearmeman.settings import Settings

if TYPE_CHECKING:
    from hearmeman.models.cache import Cache


@dataclass(frozen=True)
class Remote:
    """An address that serves a file, and what its source states about it."""

    url: str
    """The address; it may hold a signature, so it is never shown."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """For the address's own origin alone."""
    size: int | None = None
    """Bytes, as stated."""
    sha256: str | None = None
    """Hash, as stated."""
    blob: str | None = None
    """Git's hash, as stated."""
    revision: str = ""
    """Commit, as stated."""
    name: str = ""
    """The file's name, as stated."""
    xet: Mapping[str, Any] | None = field(default=None, repr=False)
    """What the Xet client needs; None when the source does not offer it."""


def check_offer(file: File, remote: Remote) -> None:
    """Compare what a source states with what the catalogue names.

    Raises:
        MovedError: they differ.
    """
    if file.size and remote.size and remote.size != file.size:
        raise moved(file.to, file.source, f"offers {remote.size} bytes, the catalogue names {file.size}")
    for ours, theirs in ((file.sha256, remote.sha256), (file.blob, remote.blob)):
        if ours and theirs and ours != theirs:
            raise moved(
                file.to, file.source, f"offers the content {theirs[:12]}..., the catalogue names {ours[:12]}..."
            )


class Sources:
    """All sources, with the settings and the tokens that they need."""

    def __init__(self, settings: Settings, http: Http, cache: Cache | None = None) -> None:
        self.settings = settings
        self.http = http
        self.cache = cache

    def resolve(self, file: File, cached: bool = True) -> Remote:
        """Tell where a file's bytes are: in the cache, unless `cached` is false, else at its source.

        Raises:
            TransientError: worth asking again.
            FetchError: one of its leaves; the message names the file.
        """
        cache = self.cache if cached else None
        if cache and file.sha256 and (found := cache.find(file.sha256)):
            return found
        remote = self._ask(file)
        if cache and not file.sha256 and remote.sha256 and (found := cache.find(remote.sha256)):
            return found
        return remote

    def _ask(self, file: File) -> Remote:
        from hearmeman.models.sources import civitai, lfs

        try:
            match file.source:
                case HuggingFace():
                    return self._hub(file, file.source)
                case CivitAI():
                    return civitai.resolve(file.source, self.settings, self.http)
                case GitLFS():
                    return lfs.resolve(file, file.source, self.http)
                case Web():
                    return Remote(file.source.url)
                case _:
                    raise FetchError("a snapshot is listed before its files are asked for")
        except FetchError as error:
            raise type(error)(f"{file.to}: {file.source}: {error}") from error

    def _hub(self, file: File, source: HuggingFace) -> Remote:
        from hearmeman.models.sources import hub

        try:
            return hub.resolve(source, self.settings)
        except NotFoundError:
            if not file.sha256 or source.revision == "main":
                raise
        # Repositories are rewritten, and then a commit is gone; the hash tells whether the file is still the same.
        found = hub.resolve(source.model_copy(update={"revision": "main"}), self.settings)
        log("model.revision", file=file.to, gone=source.revision, then="taking it from the main branch, by its hash")
        return found
