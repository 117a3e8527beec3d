"""Hugging Face: files and snapshots, asked for through huggingface_hub, whose errors say what is wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from hearmeman.models.catalogue import HuggingFace, Listing, Part, Snapshot
from hearmeman.models.errors import FetchError, GatedError, NotFoundError, TransientError
from hearmeman.models.http import brief, origin, retry_after
from hearmeman.models.sources import Remote
from hearmeman.settings import Settings


def resolve(source: HuggingFace, settings: Settings) -> Remote:
    """Find a file: its commit, size, hash, and the address of its bytes.

    Raises:
        TransientError: the Hub does not answer, or asks to wait.
        FetchError: one of its leaves.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    token = _token(settings)
    url = hf_hub_url(source.repo, source.path, revision=source.revision, endpoint=settings.hf_endpoint)
    with _told(source.repo, settings):
        found = get_hf_file_metadata(
            url, token=token or False, timeout=10, endpoint=settings.hf_endpoint, library_name="hearmeman"
        )
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
        revision=found.commit_hash or "",
        xet=xet,
    )


def listing(source: Snapshot, settings: Settings) -> Listing:
    """List a snapshot's files at its revision's commit.

    Raises:
        TransientError: the Hub does not answer, or asks to wait.
        FetchError: one of its leaves.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    api = HfApi(endpoint=settings.hf_endpoint, token=_token(settings) or False, library_name="hearmeman")
    with _told(source.repo, settings):
        commit = api.model_info(source.repo, revision=source.revision, timeout=10).sha
        found = list(api.list_repo_tree(source.repo, revision=commit, recursive=True))
    parts = tuple(
        Part(path=f.path, size=f.size, sha256=f.lfs.sha256 if f.lfs else None, blob=None if f.lfs else f.blob_id)
        for f in found
        if isinstance(f, RepoFile) and source.takes(f.path)
    )
    if commit is None or not parts:
        raise NotFoundError("the repository has no file that is wanted: check the catalogue's patterns")
    return Listing(revision=commit, parts=parts)


def _token(settings: Settings) -> str:
    return settings.hf_token.get_secret_value() if settings.hf_token else ""


def _is_hash(text: str, length: int) -> bool:
    return len(text) == length and all(c in "0123456789abcdef" for c in text)


@contextlib.contextmanager
def _told(repo: str, settings: Settings) -> Iterator[None]:
    """Turn the Hub's errors into ours."""
    import httpx2
    from huggingface_hub import errors as hub

    page = f"{settings.hf_endpoint}/{repo}"
    try:
        yield
    except hub.GatedRepoError as error:
        mend = (
            "the account of HF_TOKEN must accept it"
            if settings.hf_token
            else "then set HF_TOKEN to that account's token"
        )
        raise GatedError(f"it is gated: accept its licence on {page}; {mend}") from error
    except hub.RevisionNotFoundError as error:
        raise NotFoundError("that revision does not exist there any more: lock the file again") from error
    except hub.RemoteEntryNotFoundError as error:
        raise NotFoundError("it does not exist in that repository (404): correct the catalogue, or lock it") from error
    except hub.RepositoryNotFoundError as error:
        mend = "check that HF_TOKEN may read it" if settings.hf_token else "if it is private, set HF_TOKEN"
        raise NotFoundError(f"the repository {repo} does not exist or is private: check its name; {mend}") from error
    except hub.HfHubHTTPError as error:
        _refused(error, settings)
    except hub.OfflineModeIsEnabled as error:
        raise FetchError("HF_HUB_OFFLINE is set, so the Hub is not asked: unset it") from error
    except (httpx2.TransportError, OSError) as error:
        raise TransientError(f"{settings.hf_endpoint} does not answer ({brief(error)})") from error


def _refused(error: Any, settings: Settings) -> None:
    response = error.response
    status = response.status_code if response is not None else 0
    if status in (0, 408, 425, 429) or status >= 500:
        wait = retry_after(response.headers.get("Retry-After", "")) if response is not None else 0
        raise TransientError(f"{settings.hf_endpoint} answered {status}", wait) from error
    if status in (401, 403):
        raise GatedError(f"the Hub refuses HF_TOKEN ({status}): make a new token that may read it") from error
    raise FetchError(f"the Hub answered {status}: check HF_ENDPOINT") from error
