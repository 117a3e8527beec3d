"""Git LFS: one object by its sha256, through the batch API, without cloning the repository."""

from __future__ import annotations

import json

from hearmeman.models.catalogue import File, GitLFS
from hearmeman.models.errors import ContradictionError, FetchError, NotFoundError
from hearmeman.models.http import Http, host
from hearmeman.models.remote import Remote

_TYPE = "application/vnd.git-lfs+json"


def resolve(file: File, source: GitLFS, http: Http) -> Remote:
    """Ask the repository's LFS server for the object's address.

    Raises:
        TransientError: the server does not answer, or asks to wait.
        FetchError: one of its leaves.
    """
    url = f"{source.repo.removesuffix('/').removesuffix('.git')}.git/info/lfs/objects/batch"
    wanted = {"oid": file.sha256, "size": file.size}
    body = json.dumps({"operation": "download", "transfers": ["basic"], "objects": [wanted], "hash_algo": "sha256"})
    answer = http.text(url, {"Accept": _TYPE, "Content-Type": _TYPE}, method="POST", body=body.encode())
    try:
        found = json.loads(answer)["objects"][0]
        if "error" in found:
            raise NotFoundError(f"{host(url)} does not have that object: {found['error'].get('message', '')}")
        action = found["actions"]["download"]
        headers = dict(action.get("header") or {})
        return Remote(action["href"], headers, size=file.size, sha256=file.sha256, stated=True)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        verdict = FetchError(f"{host(url)} did not answer like a Git LFS server: check the address")
        raise ContradictionError(verdict) from error
