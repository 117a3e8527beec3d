"""Hugging Face: files and snapshots, asked for through huggingface_hub, whose errors say what is wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from hearmeman.models.catalogue import HuggingFace, Listing, Part, Snapshot
from hearmeman.models.errors import (
    ContradictionError,
    FetchError,
    GatedError,
    NotFoundError,
    NotServedError,
    TransientError,
)
from hearmeman.models.http import brief, origin, wait_asked
from hearmeman.models.remote import Remote
from hearmeman.models.sources.token import Token, TokenRefusedError
from hearmeman.settings import Settings


def resolve(source: HuggingFace, settings: Settings, token: Token) -> Remote:
    """Find a file: its commit, size, hash, and the address of its bytes.

    Raises:
        TransientError: the Hub does not answer, or asks to wait.
        FetchError: one of its leaves.
    """
    return token.ask(lambda secret: _resolve(source, settings, secret))


def _resolve(source: HuggingFace, settings: Settings, token: str) -> Remote:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(source.repo, source.path, revision=source.revision, endpoint=settings.hf_endpoint)
    with _told(source.repo, settings, token):
        found = get_hf_file_metadata(
            url, token=token or False, timeout=10, endpoint=settings.hf_endpoint, library_name="hearmeman"
        )
    if found.commit_hash is None:
        # A proxy's page, or storage without the Hub's headers: huggingface_hub takes neither for a file.
        raise ContradictionError(NotServedError(f"{settings.hf_endpoint} did not answer like the Hub"))
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    etag = (found.etag or "").lower()
    xet = None
    if found.xet_file_data is not None:
        xet = {
            "hash": found.xet_file_data.file_hash,
            "size": found.size,
            "refresh": found.xet_file_data.refresh_route,
            "headers": headers if origin(found.xet_file_data.refresh_route) == origin(settings.hf_endpoint) else {},
        }
    return Remote(
        url=found.location,
        headers=headers if origin(found.location) == origin(settings.hf_endpoint) else {},
        size=found.size,
        # A large file's tag is its sha256, a small one's is git's hash of it.
        sha256=etag if _is_hash(etag, 64) else None,
        blob=etag if _is_hash(etag, 40) else None,
        revision=found.commit_hash,
        xet=xet,
        stated=True,
    )


def listing(source: Snapshot, settings: Settings, token: Token) -> Listing:
    """List a snapshot's files at its revision's commit.

    Raises:
        TransientError: the Hub does not answer, or asks to wait.
        FetchError: one of its leaves.
    """
    return token.ask(lambda secret: _listing(source, settings, secret))


def _listing(source: Snapshot, settings: Settings, token: str) -> Listing:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    api = HfApi(endpoint=settings.hf_endpoint, token=token or False, library_name="hearmeman")
    with _told(source.repo, settings, token):
        commit = api.model_info(source.repo, revision=source.revision, timeout=10).sha
        found = list(api.list_repo_tree(source.repo, revision=commit, recursive=True))
    parts = tuple(
        Part(path=f.path, size=f.size, sha256=f.lfs.sha256 if f.lfs else None, blob=None if f.lfs else f.blob_id)
        for f in found
        if isinstance(f, RepoFile) and source.takes(f.path)
    )
    if commit is None or not parts:
        raise NotFoundError("no file of the repository matches: check the catalogue's patterns")
    return Listing(revision=commit, parts=parts)


def _is_hash(text: str, length: int) -> bool:
    return len(text) == length and all(c in "0123456789abcdef" for c in text)


@contextlib.contextmanager
def _told(repo: str, settings: Settings, token: str) -> Iterator[None]:
    """Turn the Hub's errors into ours: final where its own headers say what is wrong, else worth another try."""
    import httpx2
    from huggingface_hub import errors as hub

    page = f"{settings.hf_endpoint}/{repo}"
    try:
        yield
    except hub.HfHubHTTPError as error:
        response = error.response
        status = response.status_code if response is not None else 0
        if status in (0, 408, 425, 429) or status >= 500:
            wait = wait_asked(response.headers) if response is not None else 0
            raise TransientError(f"{settings.hf_endpoint} answered {status}", wait) from error
        verdict = _verdict(error, status, repo, page, token, settings.hf_endpoint)
        if response.headers.keys() & {"x-error-code", "x-error-message"}:
            raise verdict from error
        raise ContradictionError(verdict) from error
    except hub.OfflineModeIsEnabled as error:
        raise FetchError("HF_HUB_OFFLINE is set, so the Hub is not asked: unset it") from error
    except (httpx2.TransportError, OSError) as error:
        raise TransientError(f"{settings.hf_endpoint} does not answer ({brief(error)})") from error
    except ValueError as error:
        raise ContradictionError(NotServedError(f"{settings.hf_endpoint} did not answer like the Hub")) from error


def _verdict(error: Exception, status: int, repo: str, page: str, token: str, endpoint: str) -> FetchError:
    from huggingface_hub import errors as hub

    match error:
        case hub.GatedRepoError():
            fix = "the account of HF_TOKEN must accept it" if token else "then set HF_TOKEN to that account's token"
            return GatedError(f"it is gated: accept its licence on {page}; {fix}")
        case hub.RevisionNotFoundError():
            return NotFoundError("that revision no longer exists there: lock the file again")
        case hub.RemoteEntryNotFoundError():
            return NotFoundError("it does not exist in that repository (404): correct its path")
        case hub.RepositoryNotFoundError():
            fix = "check that HF_TOKEN may read it" if token else "if it is private, set HF_TOKEN"
            return NotFoundError(f"the repository {repo} does not exist or is private: check its name; {fix}")
        case hub.DisabledRepoError():
            return NotFoundError(f"the Hub has disabled the repository {repo}: another source is needed")
    if status in (401, 403) and token:
        return TokenRefusedError(f"the Hub rejects HF_TOKEN ({status}): make a new token that may read it")
    return FetchError(f"{endpoint} answered {status}: check HF_ENDPOINT")
