"""`hearmeman models add | remove`: models by address that a volume keeps, for every pod that mounts it."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterable, Sequence

from hearmeman.errors import HearmemanError, UsageError
from hearmeman.models.address import AddressError, parse
from hearmeman.models.asked import is_address, nearest
from hearmeman.models.catalogue import File, HuggingFace, Snapshot
from hearmeman.models.context import Context
from hearmeman.models.errors import FetchError, NotFoundError, TransientError
from hearmeman.models.http import Http
from hearmeman.models.lock import is_pinned
from hearmeman.models.sources import Sources
from hearmeman.models.statements import Statements
from hearmeman.terminal import size


class NotAddedError(UsageError):
    """`remove` names what was never added."""


class UnwritableError(HearmemanError):
    """What was added cannot be noted on the volume."""


class SourceError(HearmemanError):
    """The source of an address does not answer, or refuses; nothing was added."""


def refuse_ids(names: Sequence[str]) -> None:
    """See that all names are addresses.

    Raises:
        UsageError: one of them is not.
    """
    if plain := [name for name in names if not is_address(name)]:
        raise UsageError(
            f"{plain[0]!r} is not an address; enable models of the catalogue with MODELS={plain[0]} or"
            f" `hearmeman models fetch {plain[0]}`"
        )


def add(args: argparse.Namespace, context: Context) -> Context:
    """Ask the sources, note the addresses on the volume; gives a context of these models alone, to fetch them.

    Raises:
        SourceError: a source does not have it, or does not answer; nothing was added.
    """
    ids = {parse(address, context.folders).id for address in args.models}
    files = {name for model in context.models if model.id in ids for name in model.files}
    for file in context.catalogue.files:
        if file.id in files:
            _ask(file, context, args.json)
    noted = context.added.read()
    _note([*noted, *(one for one in args.models if one not in noted)], context)
    return dataclasses.replace(context, models=tuple(model for model in context.models if model.id in ids))


def remove(args: argparse.Namespace, context: Context) -> int:
    """Forget addresses; their files stay until `prune`.

    Raises:
        NotAddedError: one of them was not added.
    """
    added = {parse(address, context.folders).id: address for address in context.added.read()}
    gone = set()
    for name in args.models:
        try:
            id = parse(name, context.folders).id
        except AddressError:
            id = name
        if id not in added:
            raise NotAddedError(f"{name!r} was not added{nearest(name, added)}: there are {', '.join(added) or 'none'}")
        gone.add(added[id])
    _note(set(added.values()) - gone, context)
    if args.json:
        print(json.dumps({"removed": sorted(gone)}, indent=2))
        return 0
    print("\n".join(f"forgotten: {address}" for address in sorted(gone)))
    print("`hearmeman models prune` lists their files, and with --yes removes them")
    return 0


def _note(addresses: Iterable[str], context: Context) -> None:
    try:
        context.added.write(addresses)
    except OSError as error:
        raise UnwritableError(
            f"{context.added.path} cannot be written: {error.strerror}: free some space, or run it as root of the pod"
        ) from error


def _ask(file: File, context: Context, quiet: bool) -> None:
    """Let the source say what it has, before anything is noted or fetched."""
    statements = Statements(context.store, Sources(context.settings, Http(1, 30)))
    try:
        if file.unnamed:
            statements.name(file)
            file = _now(file, context)
        found = statements.ask(file)
        if not is_pinned(file):
            statements.keep(file, found)
    except NotFoundError as error:
        raise SourceError(f"{error}{_near(file, statements.sources)}: nothing was added") from error
    except (FetchError, TransientError) as error:
        raise SourceError(f"{error}: nothing was added") from error
    except OSError as error:
        where = error.filename or context.store.root
        raise UnwritableError(f"{where} cannot be written: {error.strerror}: nothing was added") from error
    if not quiet:
        stated = "size unknown" if found.size is None else size(found.size)
        digest = (
            f"sha256 {found.sha256[:12]}"
            if found.sha256
            else ("no hash published: it is recorded after the first fetch")
        )
        print(f"{file.to}  {stated}, {digest}", flush=True)


def _near(file: File, sources: Sources) -> str:
    """Suggest files of the same repository that may have been meant."""
    source = file.source
    if not isinstance(source, HuggingFace):
        return ""
    try:
        listing = sources.list(Snapshot(repo=source.repo, revision=source.revision, exclude=()))
    except (FetchError, TransientError):
        return ""
    return nearest(source.path, [part.path for part in listing.parts])


def _now(file: File, context: Context) -> File:
    return next(one for one in context.catalogue.files if one.id == file.id)
