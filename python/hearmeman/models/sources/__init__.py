"""Where files come from: each kind of source turns a catalogue's file into an address that serves its bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hearmeman.models.catalogue import CivitAI, File, GitLFS, HuggingFace, Web
from hearmeman.models.errors import FetchError
from hearmeman.models.http import Http
from hearmeman.settings import Settings


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
    xet: Mapping[str, Any] | None = field(default=None, repr=False)
    """What the Xet client needs; None when the source does not offer it."""


class Sources:
    """All sources, with the settings and the tokens that they need."""

    def __init__(self, settings: Settings, http: Http) -> None:
        self.settings = settings
        self.http = http

    def resolve(self, file: File) -> Remote:
        """Ask the file's source where its bytes are.

        Raises:
            TransientError: worth asking again.
            FetchError: one of its leaves; the message names the file.
        """
        from hearmeman.models.sources import civitai, hub, lfs

        try:
            match file.source:
                case HuggingFace():
                    return hub.resolve(file.source, self.settings)
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
