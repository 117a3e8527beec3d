"""Where files come from: each kind of source turns a catalogue's file into an address that serves its bytes."""

from __future__ import annotations

from hearmeman.log import log
from hearmeman.models.catalogue import CivitAI, File, GitLFS, HuggingFace, Listing, Snapshot, Web
from hearmeman.models.errors import FetchError, NotFoundError
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
        from hearmeman.models.sources import civitai, lfs

        try:
            match file.source:
                case HuggingFace():
                    return self._hub(file, file.source)
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

    def _hub(self, file: File, source: HuggingFace) -> Remote:
        from hearmeman.models.sources import hub

        try:
            return hub.resolve(source, self.settings, self.hub_token)
        except NotFoundError:
            if not file.sha256 or source.revision == "main":
                raise
        # Repositories are rewritten, and then a commit is gone; the hash tells whether the file is still the same.
        found = hub.resolve(source.model_copy(update={"revision": "main"}), self.settings, self.hub_token)
        log(
            "model.revision_gone",
            file=file.to,
            gone=source.revision,
            then="taking it from the main branch, by its hash",
        )
        return found
