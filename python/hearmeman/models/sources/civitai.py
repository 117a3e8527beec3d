"""CivitAI: a version's file, chosen by name or number, with the hash that its API states."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from hearmeman.log import log
from hearmeman.models.catalogue import CivitAI
from hearmeman.models.errors import (
    ContradictionError,
    FetchError,
    GatedError,
    NotFoundError,
    TransientError,
    UnsafeError,
)
from hearmeman.models.http import Http, host, origin
from hearmeman.models.remote import Remote
from hearmeman.models.sources.token import Token, TokenRefusedError
from hearmeman.settings import Settings

_SCANS = {"virus scan": "virusScanResult", "pickle scan": "pickleScanResult"}
_OWN = frozenset({("https", "civitai.com", 443), ("https", "civitai.red", 443)})


def resolve(source: CivitAI, settings: Settings, key: Token, http: Http) -> Remote:
    """Find a version's file and where it is downloaded from.

    Raises:
        TransientError: CivitAI does not answer, or asks to wait.
        FetchError: one of its leaves.
    """
    return key.ask(lambda secret: _resolve(source, settings, secret, http))


def _resolve(source: CivitAI, settings: Settings, key: str, http: Http) -> Remote:
    endpoint = settings.civitai_endpoint.rstrip("/")
    trusted = _OWN | {origin(endpoint)}
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        version = json.loads(http.text(f"{endpoint}/api/v1/model-versions/{source.version}", headers, trusted))
        files: list[dict[str, Any]] = version["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise ContradictionError(FetchError(f"{host(endpoint)} did not describe the version")) from error
    except GatedError as error:
        if key:
            raise TokenRefusedError(str(error)) from error
        raise
    except NotFoundError as error:
        raise NotFoundError(_no_version(source, endpoint, headers, trusted, http)) from error
    chosen = _choose(files, source)
    _refuse_infected(chosen)
    hashes = {name.lower(): str(value).lower() for name, value in (chosen.get("hashes") or {}).items()}
    url = str(chosen.get("downloadUrl") or f"{endpoint}/api/download/models/{source.version}")
    return Remote(
        url=url,
        headers=headers if origin(url) in trusted else {},
        size=_size(chosen),
        sha256=hashes.get("sha256"),
        revision=str(source.version),
        name=str(chosen.get("name") or ""),
        stated=True,
    )


def _no_version(
    source: CivitAI, endpoint: str, headers: dict[str, str], trusted: frozenset[tuple[str, str, int]], http: Http
) -> str:
    """Say that there is no such version; a model's number is easily taken for one of its versions'."""
    with contextlib.suppress(FetchError, TransientError, ValueError, KeyError, TypeError):
        model = json.loads(http.text(f"{endpoint}/api/v1/models/{source.version}", headers, trusted))
        versions = ", ".join(f"{one['id']} ({one.get('name')})" for one in model["modelVersions"][:5])
        return f"{source.version} is the number of a model, {model.get('name')!r}; its versions are {versions}: name one of them"
    return f"CivitAI has no version {source.version}: on a model's page it is the number after modelVersionId="


def _size(chosen: dict[str, Any]) -> int | None:
    """Give the bytes that `sizeKB` stands for; None where it was rounded, or is not there."""
    try:
        exact = float(chosen["sizeKB"]) * 1024
    except (KeyError, TypeError, ValueError):
        return None
    return int(exact) if exact > 0 and exact == int(exact) else None


def _refuse_infected(chosen: dict[str, Any]) -> None:
    """Heed what CivitAI's scanners have found in a file.

    Raises:
        UnsafeError: they say that it is dangerous.
    """
    results = {what: str(chosen.get(key) or "none") for what, key in _SCANS.items()}
    if bad := [what for what, result in results.items() if result == "Danger"]:
        raise UnsafeError(
            f"CivitAI's {' and '.join(bad)} found something dangerous in {chosen.get('name')}: it is not fetched"
        )
    if open_ := [f"{what}: {result}" for what, result in results.items() if result != "Success"]:
        log("model.unscanned", file=chosen.get("name"), said=", ".join(open_), then="fetching it anyway")


def _choose(files: list[dict[str, Any]], source: CivitAI) -> dict[str, Any]:
    if source.file:
        chosen = [f for f in files if source.file in (str(f.get("id")), f.get("name"))]
    else:
        chosen = [f for f in files if f.get("primary")] or files[:1]
    if not chosen:
        there = ", ".join(str(f.get("name")) for f in files) or "nothing"
        raise NotFoundError(f"that version has no such file; its files are {there}: name one of them")
    return chosen[0]
