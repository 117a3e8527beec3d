"""`hearmeman models fetch`: takes the lease, plans anew if another fetch was at it, fetches, and lends the rest to the cache."""

from __future__ import annotations

import contextlib
import errno
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hearmeman.errors import PassingError
from hearmeman.log import log
from hearmeman.models.cache import Cache
from hearmeman.models.fetch import Fetch, Waiting
from hearmeman.models.lease import Lease

if TYPE_CHECKING:
    from hearmeman.models.context import Context
    from hearmeman.models.plan import Plan

_UNWRITABLE = (errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM)


class StateError(PassingError):
    """The state or the models folder cannot be written, while something is to be fetched."""


def run(made: Plan, context: Context, as_json: bool) -> int:
    """Fetch what `made` names; returns the exit code.

    Raises:
        HearmemanError: one of its leaves, with what happened and what to do.
    """
    settings = context.settings
    state = Path(settings.state_path) / "models.json"
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for note in made.notes:
            log("models.noted", note=note)
        context.check_space(made)
        # The lease ends first: others need not wait for what this one uploads to the cache.
        with _cache(context) as cache, _lease(made, context) as (lease, waited):
            if waited:
                made = context.plan()
                context.check_space(made)
            steps = made.having("fetch", "list")
            log("models.planned", fetch=len(steps), bytes=made.fetch_bytes, files=len(made.steps), free=made.free_bytes)
            Fetch(made, _replanner(context), context.store, settings, lease, cache).run()
    except OSError as error:
        where = error.filename or settings.models_path
        raise StateError(
            f"{where} cannot be written: {error.strerror}: free some space, or correct MODELS_DIR"
        ) from error
    finally:
        if as_json:
            print(state.read_text(encoding="utf-8") if state.exists() else "{}")
    log("models.complete", files=len(made.steps))
    return 0


def _cache(context: Context) -> contextlib.AbstractContextManager[Cache | None]:
    return Cache(context.settings) if context.settings.model_cache else contextlib.nullcontext()


@contextlib.contextmanager
def _lease(made: Plan, context: Context) -> Iterator[tuple[Lease | None, bool]]:
    """Hold the lease; without it where all is there and the volume cannot be written. Also: whether it was waited for."""
    if not made.having("fetch", "list", "verify"):
        yield None, False
        return
    own = context.store.own
    waiting = Waiting(own / "progress.json")
    with contextlib.ExitStack() as stack:
        lease = None
        try:
            lease = stack.enter_context(Lease(own / "lease.json", context.settings.runpod_pod_id, waiting))
        except OSError as error:
            if error.errno not in _UNWRITABLE or made.having("fetch", "list"):
                raise
            log(
                "models.unwritable",
                folder=own,
                why=error.strerror,
                then="nothing to write, since all files are present",
            )
        yield lease, waiting.waited


def _replanner(context: Context) -> Callable[[], Plan]:
    def replan() -> Plan:
        made = context.plan()
        context.check_space(made)
        return made

    return replan
