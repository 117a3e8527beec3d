"""Carries a plan out: verifies what is there, fetches what is not, one state file and one log line for each step."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hearmeman.errors import HearmemanError, PartlyDoneError
from hearmeman.log import log
from hearmeman.models.catalogue import File, HuggingFace
from hearmeman.models.plan import Plan, Step
from hearmeman.models.store import Store, write_json
from hearmeman.models.verify import CorruptError, check
from hearmeman.settings import Settings


class FetchError(HearmemanError):
    """A file could not be fetched: why, and what to do."""


class AllFailedError(HearmemanError):
    """Nothing of what was asked for is there."""


class SomeFailedError(PartlyDoneError):
    """Some files are there and some are not."""


def carry_out(plan: Plan, store: Store, settings: Settings, clock: Callable[[], float] = time.time) -> None:
    """Do every step of `plan`; one that fails does not stop the others.

    Raises:
        AllFailedError: no file is there in the end.
        SomeFailedError: some are.
    """
    state = State(Path(settings.state_path) / "models.json", plan, clock)
    failures = {}
    for step in plan.steps:
        if step.action == "present":
            continue
        state.tell(step, "verifying" if step.action == "verify" else "fetching")
        began = time.monotonic()
        try:
            size = _one(step, store, settings)
        except HearmemanError as error:
            failures[step.file.id] = str(error)
            log("model.failed", file=step.file.to, why=str(error))
            state.tell(step, "failed", str(error))
            continue
        log("model.present", file=step.file.to, how=step.action, bytes=size, seconds=time.monotonic() - began)
        state.tell(step, "present")
    state.end(failures)
    if failures:
        told = "\n".join(f"  {why}" for why in failures.values())
        kind = AllFailedError if len(failures) == len(plan.steps) else SomeFailedError
        raise kind(
            f"{len(failures)} of {len(plan.steps)} files are missing, {len(plan.steps) - len(failures)} are there:\n{told}"
        )


def _one(step: Step, store: Store, settings: Settings) -> int:
    """Verify or fetch one file; the answer is its size."""
    file, target = step.file, store.root / step.file.to
    if step.action == "verify":
        try:
            store.note(file, check(target, file.size, file.sha256), "")
            return target.stat().st_size
        except CorruptError as error:
            log("model.corrupt", file=file.to, why=str(error), then="fetching it again")
    try:
        fetched = from_hub(file, file.source, store.staged(file), settings)
        try:
            digest = check(fetched, file.size, file.sha256)
        except CorruptError as error:
            fetched.unlink()
            raise FetchError(
                f"{file.to}: {file.source} sent something else than the catalogue says ({error}):"
                " what was there before is untouched; if upstream changed the file, lock it again"
            ) from error
        store.accept(file, fetched, digest)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise FetchError(
                f"{file.to}: the disk or its quota is full: free some space; the fetch goes on where it stopped"
            ) from error
        raise FetchError(f"{file.to}: {error.filename or store.root} cannot be written: {error.strerror}") from error
    return target.stat().st_size


def from_hub(file: File, source: HuggingFace, folder: Path, settings: Settings) -> Path:
    """Fetch a file of the Hub into `folder`; a part that is there is gone on with.

    Raises:
        FetchError: the Hub does not give it.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    token = settings.hf_token.get_secret_value() if settings.hf_token else False
    name = f"{file.to}: {source}"
    try:
        return Path(
            hf_hub_download(
                source.repo,
                source.path,
                revision=source.revision,
                local_dir=folder,
                token=token,
                endpoint=settings.hf_endpoint,
                library_name="hearmeman",
            )
        )
    except GatedRepoError as error:
        mend = "your account must accept its licence" if token else "set HF_TOKEN to a token of an account that did"
        raise FetchError(
            f"{name} is gated: accept its licence on {settings.hf_endpoint}/{source.repo}; {mend}"
        ) from error
    except RevisionNotFoundError as error:
        raise FetchError(f"{name}: that revision does not exist any more: lock the file again") from error
    except RemoteEntryNotFoundError as error:
        raise FetchError(f"{name} does not exist in that repository (404): lock the file again") from error
    except RepositoryNotFoundError as error:
        raise FetchError(f"{name}: the repository does not exist or is private: check its name and HF_TOKEN") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no"
        raise FetchError(f"{name}: the Hub answered with status {status}: try again later") from error
    except LocalEntryNotFoundError as error:
        raise FetchError(
            f"{name}: {settings.hf_endpoint} does not answer: check the network and HF_ENDPOINT"
        ) from error


class State:
    """The file that tells the status page how far the fetch is."""

    def __init__(self, path: Path, plan: Plan, clock: Callable[[], float]) -> None:
        self.path = path
        self.clock = clock
        self.content: dict[str, Any] = {
            "state": "fetching",
            "models": [model.id for model in plan.models],
            "files_total": len(plan.steps),
            "files_present": sum(step.action == "present" for step in plan.steps),
            "started": clock(),
            "updated": clock(),
            "files": {
                step.file.id: {
                    "to": step.file.to,
                    "state": "present" if step.action == "present" else "waiting",
                    "size": step.file.size,
                    "problem": "",
                }
                for step in plan.steps
            },
        }
        self._write()

    def tell(self, step: Step, state: str, problem: str = "") -> None:
        """Note what became of one file."""
        self.content["files"][step.file.id].update(state=state, problem=problem)
        self.content["files_present"] = sum(f["state"] == "present" for f in self.content["files"].values())
        self._write()

    def end(self, failures: dict[str, str]) -> None:
        """Note that it is over."""
        self.content["state"] = "incomplete" if failures else "complete"
        self._write()

    def _write(self) -> None:
        self.content["updated"] = self.clock()
        write_json(self.path, self.content)
