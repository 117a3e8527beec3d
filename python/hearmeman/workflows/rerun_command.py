"""`hearmeman workflows rerun`: finds how an output was made, checks that the same models are here, and makes it again."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hearmeman.errors import HearmemanError, UsageError
from hearmeman.image import IMAGE_FILE, RUN_DIR
from hearmeman.log import log
from hearmeman.redact import learn
from hearmeman.state_file import read_json
from hearmeman.workflows import run_command
from hearmeman.workflows.provenance import (
    Made,
    NoRecordError,
    NotTheSameError,
    differences,
    from_file,
    parse,
    unverified,
)
from hearmeman.workflows.shown import shown

if TYPE_CHECKING:
    from hearmeman.settings import Settings

_LARGEST_RECORD = 64 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "output", help="an object's key (or s3://BUCKET/KEY), a PNG saved by ComfyUI, or a downloaded record"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="download the outputs into this folder")
    parser.add_argument("--timeout", type=float, default=3600.0, metavar="S", help="seconds to wait (%(default)g)")
    parser.add_argument("--dry-run", action="store_true", help="only say whether it can be made again")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Make it again; returns the exit code.

    Raises:
        HearmemanError: one of its leaves, with what happened and what to do.
    """
    from hearmeman.settings import load

    if not args.timeout > 0:
        raise UsageError(f"--timeout {args.timeout:g}: it takes a number of seconds above 0")
    settings = load(environ)
    path = Path(args.output)
    made = from_file(path) if path.is_file() else _from_bucket(args.output, environ)
    _check(made, settings, environ)
    if args.dry_run:
        print("it can be made again: its models and inputs are here")
        return 0
    from hearmeman.workflows import once
    from hearmeman.workflows.client import Client

    url, token = run_command.address("", environ)

    async def go() -> None:
        async with Client(url, token) as client:
            await once.run(client, dict(made.graph), {}, args.timeout, args.out, screen)

    with shown(args.json) as screen:
        try:
            asyncio.run(go())
        except HearmemanError as error:
            screen.failed(error)
            raise
        except OSError as error:
            raise run_command.SaveError(
                f"cannot write to the folder given with --out, {error.filename or args.out}: {error.strerror}"
            ) from error
    return 0


def _from_bucket(output: str, environ: Mapping[str, str]) -> Made:
    """Read the record that an object names.

    Raises:
        NoRecordError: there is no such object, or it names none.
    """
    from botocore.exceptions import ClientError

    from hearmeman.settings import load
    from hearmeman.sync.bucket import Bucket
    from hearmeman.sync.explain import explained
    from hearmeman.sync.provenance import METADATA, key_of

    # Root's shell has no keys; the sync has them.
    given = {**read_json(RUN_DIR / "env" / "sync.json"), **environ}
    learn(given)
    settings = load(given)
    if not (settings.r2_endpoint and settings.r2_access_key_id and settings.r2_secret_access_key):
        raise NoRecordError(
            f"{output} is no file here, and no bucket is set up to look for it: give a file, or set R2_ENDPOINT, "
            "R2_ACCESS_KEY_ID and R2_SECRET_ACCESS_KEY (docs/sync.md)"
        )
    bucket = Bucket(settings, 1)
    key = output.removeprefix("s3://").removeprefix(f"{bucket.name}/") if output.startswith("s3://") else output
    with explained(bucket, key):
        try:
            if not key.endswith(".json"):
                found = bucket.client.head_object(Bucket=bucket.name, Key=key)
                noted = {name.lower(): value for name, value in found.get("Metadata", {}).items()}
                if not noted.get(METADATA):
                    raise NoRecordError(
                        f"{key} does not say how it was made: ComfyUI no longer knew, or SYNC_PROVENANCE was off"
                    )
                key = key_of(settings.r2_prefix, noted[METADATA])
            answer: Any = bucket.client.get_object(Bucket=bucket.name, Key=key)
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") != 404:
                raise
            raise NoRecordError(
                f"there is no object {key} in the bucket {bucket.name}, and no such file here"
            ) from error
        with answer["Body"] as body:
            content = body.read(_LARGEST_RECORD)
    name = key.rpartition("/")[2].removesuffix(".json")
    if len(name) == 64 and hashlib.sha256(content).hexdigest() != name:
        raise NoRecordError(f"{key} does not match its name: it was changed, so it is not used")
    return parse(content, key)


def _check(made: Made, settings: Settings, environ: Mapping[str, str]) -> None:
    """Check that everything the output was made with is here.

    Raises:
        NotTheSameError: names every model and input that is missing or different.
    """
    from hearmeman.sync.provenance import image_facts

    root, inputs = Path(settings.models_path), Path(settings.comfyui_dir) / "input"
    # Only the name of an unverified model is known, from the graph; ComfyUI says if it is missing.
    hashes = {one["file"]: _hash(root, one["file"], settings) for one in made.models if one.get("sha256")}
    wrong = differences(made, hashes, {one["file"]: _hash_of_input(inputs, one["file"]) for one in made.inputs})
    if wrong:
        ids = _models_of([name for name, here in hashes.items() if here is None], settings)
        fetch = f"\nFetch: hearmeman models fetch {' '.join(ids)}" if ids else ""
        raise NotTheSameError("it would not be the same:\n" + "\n".join(f"  {text}" for text in wrong) + fetch)
    if names := unverified(made):
        log("workflow.unverified", models=" ".join(names), means="they had not been verified, so they may differ")
    here = image_facts(read_json(IMAGE_FILE), settings.image_digest)
    was = made.image or {}
    names = [name for name in was if was[name] != here.get(name)]
    if names:
        log(
            "workflow.image_differs",
            differs=" ".join(names),
            made_with=str(was.get("digest") or was.get("image_json_sha256") or was.get("comfyui_rev")),
            means="another image's nodes and libraries may make a different output",
        )


def _hash(root: Path, name: str, settings: Settings) -> str | None:
    """A model's hash: the verified one if the file has not changed since, else by reading it."""
    from hearmeman.models.store import Store

    path = root / name.lstrip("/")
    if ".." in path.parts or not path.is_file():
        return None
    record, seen = Store(root).read_records().get(name), path.stat()
    if record is not None and (record.size, record.mtime_ns) == (seen.st_size, seen.st_mtime_ns):
        return record.sha256
    log("workflow.hashing", model=name)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _hash_of_input(inputs: Path, name: str) -> str | None:
    from hearmeman.sync.provenance import open_input

    try:
        with open_input(inputs, name) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return None


def _models_of(files: list[str], settings: Settings) -> list[str]:
    """Name the models of the catalogue that bring these files."""
    from hearmeman.models import catalogue

    known = catalogue.read(Path(settings.model_catalogue))
    found = []
    for name in files:
        ids = {file.id for file in known.files if name == file.to or name.startswith(f"{file.to}/")}
        found += [next((model.id for model in known.models if ids & set(model.files)), "")]
    return sorted({model for model in found if model})
