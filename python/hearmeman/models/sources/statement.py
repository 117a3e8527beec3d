"""What a source states about a file, asked for without fetching it, and kept for later starts and other pods."""

from __future__ import annotations

import dataclasses

from hearmeman.models.catalogue import CivitAI, File
from hearmeman.models.lock import Locked
from hearmeman.models.sources import Remote, Sources


def ask(sources: Sources, file: File) -> Locked:
    """Ask a file's source for revision, size, hash and name; raises like `Sources.resolve`."""
    remote = sources.resolve(file, cached=False)
    if remote.size is None and not isinstance(file.source, CivitAI):
        # No one states it, so the first byte is asked for: the answer names the whole.
        answer = sources.http.open(remote.url, remote.headers, (0, 1), file.to)
        answer.response.close()
        remote = dataclasses.replace(remote, size=answer.total)
    return kept(file, remote)


def kept(file: File, remote: Remote) -> Locked:
    """Give what is kept of a source's answer."""
    return Locked(
        revision=remote.revision,
        size=remote.size,
        sha256=remote.sha256,
        blob=remote.blob,
        name=remote.name if file.unnamed else "",
        source=str(file.source),
    )
