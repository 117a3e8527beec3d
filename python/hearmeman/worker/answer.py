"""What a job is answered with: its outputs in base64, or by their addresses where they are too large for an answer."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from hearmeman.errors import HearmemanError
from hearmeman.workflows.answers import Output, Result

RUN_BYTES = 10_000_000
"""What RunPod takes as the answer to /run."""
RUNSYNC_BYTES = 20_000_000
"""What it takes as the answer to /runsync."""
_RESERVED = ("error", "refresh_worker", "texts", "status")

Saved = Sequence[tuple[Output, Path]]


class TooLargeError(HearmemanError):
    """The answer is larger than RunPod takes, and there is no bucket for it."""


def limit(job_id: str) -> int:
    """How many bytes the answer to a job may have; the ids of /runsync begin with sync-."""
    return RUNSYNC_BYTES if job_id.startswith("sync-") else RUN_BYTES


def size(answer: Mapping[str, Any]) -> int:
    """How many bytes the SDK will send for an answer."""
    return len(json.dumps({"output": answer}, ensure_ascii=False).encode())


def wanted(outputs: Sequence[Output]) -> list[Output]:
    """The outputs that are given back: previews only where there is nothing else."""
    kept = [output for output in outputs if output.type != "temp"]
    return kept or list(outputs)


def least(saved: Saved) -> int:
    """How many bytes their content has in base64, without making it."""
    return sum((path.stat().st_size + 2) // 3 * 4 for _, path in saved)


def inline(result: Result, saved: Saved) -> dict[str, Any]:
    """The answer with the files' content in it."""
    return _answer(result, [(output, "base64", base64.b64encode(path.read_bytes()).decode()) for output, path in saved])


def linked(result: Result, saved: Saved, urls: Sequence[str]) -> dict[str, Any]:
    """The answer with the files' addresses in it."""
    return _answer(result, [(output, "s3_url", url) for (output, _), url in zip(saved, urls, strict=True)])


def _answer(result: Result, items: Sequence[tuple[Output, str, str]]) -> dict[str, Any]:
    found: dict[str, Any] = {"images": []}
    names = unique([output.filename for output, _, _ in items])
    for name, (output, kind, data) in zip(names, items, strict=True):
        key = "files" if output.kind in _RESERVED else output.kind
        found.setdefault(key, []).append({"filename": name, "type": kind, "data": data})
    if result.texts:
        found["texts"] = [{"node": node, "text": text} for node, text in result.texts]
    if not items and not result.texts:
        found["status"] = "success_no_images"
    return found


def unique(names: Sequence[str]) -> list[str]:
    """Give each file a name of its own: ComfyUI may have two of one name in two folders, and an answer has no folders."""
    taken, found = set(names), []
    for number, name in enumerate(names):
        if name in names[:number]:
            path = PurePosixPath(name)
            name = next(
                other for count in itertools.count(2) if (other := f"{path.stem}-{count}{path.suffix}") not in taken
            )
            taken.add(name)
        found.append(name)
    return found


def too_large(most: int, there: int) -> TooLargeError:
    """Say that an answer does not fit, and what to do."""
    route = "/runsync" if most == RUNSYNC_BYTES else "/run"
    return TooLargeError(
        f"the outputs take {there / 1e6:.1f} MB in an answer, but RunPod takes {most / 1e6:g} MB from {route}: give "
        "s3Config in the request, or set R2_ENDPOINT, R2_BUCKET and R2's two keys (or BUCKET_ENDPOINT_URL and "
        "its keys) "
        "on the endpoint, and they are uploaded; or make them smaller. ComfyUI kept them in its output folder"
    )


def too_long(most: int, there: int) -> TooLargeError:
    """Say that an answer does not fit although the bucket has all files."""
    return TooLargeError(
        f"the outputs are in the bucket, but the texts and addresses take {there / 1e6:.1f} MB in an answer, and RunPod "
        f"takes {most / 1e6:g} MB: save long texts to files"
    )
