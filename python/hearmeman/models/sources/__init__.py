"""Where files come from: each kind of source turns a catalogue's file into an address that serves its bytes."""

from __future__ import annotations

from hearmeman.models.catalogue import CivitAI, File, GitLFS, HuggingFace, Listing, Snapshot, Web
from hearmeman.models.errors import FetchError
from hearmeman.models.http import Http
from hearmeman.models.remote import Remote
from hearmeman.models.sources.token import Token
from hearmeman.settings import Settings


class Sources:
    """All sources, with the settings and the tokens that they need."""

    def __init__(self, settings: Settings, http: Http) -> None:
        self.settings = settings
        self.http = http
        self.hub_token = Token("HF_TOKEN", settings.hf_token)
        self.civitai_key = Token("CIVITAI_API_KEY", settings.civitai_api_key)

    def resolve(self, file: File) -> Remote:
        """Tell where a file's bytes are.

        Raises:
            TransientError: worth asking again.
            FetchError: one of its leaves; the message names the file.
        """
        from hearmeman.models.sources import civitai, hub, lfs

        try:
            match file.source:
                case HuggingFace():
                    return hub.resolve(file.source, self.settings, self.hub_token)
                case CivitAI():
                    return civitai.resolve(file.source, self.settings, self.civitai_key, self.http)
                case GitLFS():
                    return lfs.resolve(file, file.source, self.http)
                case Web():
                    return Remote(file.source.url)
                case _:
                    raise FetchError("a snapshot is listed before its files are asked for")
        except FetchError as error:
            raise type(error)(f"{file.to}: {file.source}: {error}") from error

    def list(self, snapshot: Snapshot) -> Listing:
        """Tell which files a snapshot has; raises like `resolve`, without a file's name."""
        from hearmeman.models.sources import hub

        return hub.listing(snapshot, self.settings, self.hub_token)
