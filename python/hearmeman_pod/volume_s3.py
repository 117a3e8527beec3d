"""`hearmeman-pod volume fill | sweep`: what goes through RunPod's S3 API to a network volume."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hearmeman import terminal
from hearmeman.models import catalogue as catalogues
from hearmeman.models.asked import asked_for, for_tier, is_address, listed
from hearmeman.models.catalogue import File, Snapshot, parts
from hearmeman.models.errors import TransientError
from hearmeman.models.http import Http
from hearmeman.models.sources import Sources
from hearmeman.settings import Settings, load
from hearmeman_pod import volume_upload
from hearmeman_pod.errors import PodError, UsageError
from hearmeman_pod.planned import find_volume, pair
from hearmeman_pod.say import agreed, note, say
from hearmeman_pod.volume_fill import Filler, Outcome
from hearmeman_pod.volume_records import FOLDER
from hearmeman_pod.world import World

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PARTLY = 3
MARGIN = 1.05
DATA_CENTERS = frozenset(
    [
        "EU-CZ-1",
        "EU-RO-1",
        "EUR-IS-1",
        "EUR-NO-1",
        "US-CA-2",
        "US-GA-2",
        "US-IL-1",
        "US-KS-2",
        "US-MD-1",
        "US-MO-1",
        "US-MO-2",
        "US-NC-1",
        "US-NC-2",
        "US-NE-1",
        "US-WA-1",
    ]
)
"""Where RunPod offers its S3 API. Source: RunPod's documentation, storage/s3-api."""
_FROM_HERE = ("HF_TOKEN", "CIVITAI_API_KEY", "HF_ENDPOINT", "CIVITAI_ENDPOINT", "MODEL_CATALOGUE")


def fill(args: argparse.Namespace, world: World) -> int:
    """Bring models to a volume."""
    volume = find_volume(world.api(), args.volume)
    environ = {name: world.environ[name] for name in _FROM_HERE if world.environ.get(name)}
    settings = load({**environ, **dict(pair(text, "--set") for text in args.set)})
    sources = Sources(settings, Http(4, 60.0))
    try:
        files = _files(settings, sources, args.gpu_tier)
    except TransientError as error:
        raise PodError(f"which files these models have cannot be asked now: {error}") from error
    if not files:
        raise UsageError(
            "these settings ask for no model: give --set MODELS=ID,… or a toggle such as --set WAN_480P=true"
        )
    needed = sum(file.expected for file in files)
    if needed * MARGIN > volume["size"] * 1e9:
        raise UsageError(
            f"the models need {needed * MARGIN / 1e9:.0f} GB and volume {volume['id']} has {volume['size']}: enlarge it in RunPod's console, or ask for fewer"
        )
    say(
        f"{terminal.count(len(files), 'file')}, {terminal.size(needed)}, to volume {volume['id']} in {volume['dataCenter']}"
    )
    s3 = _client(world, volume["dataCenter"])
    _reach(s3, volume["id"])
    filler = Filler(s3, volume["id"], sources, say, args.verify, args.replace)
    outcomes = []
    try:
        for file in files:
            outcomes.append(filler.fill(file))
            say(terminal.plain(_line(outcomes[-1])))
    except KeyboardInterrupt:
        say(
            f"what was sent stays on the volume: the same command goes on, `hearmeman-pod volume sweep {volume['id']}` removes it"
        )
        raise
    _left_over(s3, volume["id"], outcomes)
    failed = [one for one in outcomes if one.state == "failed"]
    if args.json:
        print(json.dumps([dataclasses.asdict(one) for one in outcomes], indent=1))
    else:
        print(_sum(outcomes, failed))
    return (PARTLY if len(failed) < len(outcomes) else 1) if failed else 0


_RIGHT = {
    "sha256": "its sha256 is right",
    "git": "git's hash of it is right",
    "size": "its size is right",
    "nothing": "its source states neither size nor hash",
}


def _line(one: Outcome) -> str:
    if one.state == "failed":
        return f"{one.key} failed: {one.why}"
    kept = f", {terminal.size(one.kept)} of it by an earlier run" if one.kept else ""
    right = _RIGHT[one.verified]
    how = {
        "sent": f"sent{kept}; {right}",
        "record": f"there; {right}, as recorded",
        "read": f"there and read back; {right}",
        "": f"there; {right}, its hash is not known",
    }[one.how]
    return f"{one.key}, {terminal.size(one.size)}: {how}"


def _sum(outcomes: list[Outcome], failed: list[Outcome]) -> str:
    text = f"on the volume: {len(outcomes) - len(failed)} of {terminal.count(len(outcomes), 'file')}"
    if unknown := [one for one in outcomes if one.state != "failed" and not one.how and one.verified == "size"]:
        total = terminal.size(sum(one.size for one in unknown))
        text += f"; of {len(unknown)} ({total}) only the size is known, --verify reads them back"
    return text + (f"; {len(failed)} failed, the same command tries again" if failed else "")


def _left_over(s3: S3Client, volume_id: str, outcomes: list[Outcome]) -> None:
    """Remove what is half sent of files that are whole now, and name what an earlier run left of others."""
    there = {one.key for one in outcomes if one.state != "failed"}
    failed = {one.key for one in outcomes if one.state == "failed"}
    try:
        with _s3_words():
            halves = list(volume_upload.halves(s3, volume_id, FOLDER))
            volume_upload.sweep(s3, volume_id, [one for one in halves if one.key in there])
    except PodError as error:
        note(f"whether something is half sent could not be seen: {error}")
        return
    others = [one for one in halves if one.key not in there | failed]
    if others:
        total = terminal.size(sum(one.bytes for one in others))
        note(f"{total} of other files are half sent; `hearmeman-pod volume sweep {volume_id}` removes them")


def _reach(s3: S3Client, volume_id: str) -> None:
    """Try the keys before anything is fetched.

    Raises:
        PodError: they do not open the volume, or the API cannot be reached.
    """
    from botocore.exceptions import ClientError

    with _s3_words():
        try:
            s3.head_bucket(Bucket=volume_id)
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status not in (401, 403, 404):
                raise
            raise PodError(
                f"RunPod's S3 API does not open volume {volume_id} ({status}): RUNPOD_S3_ACCESS_KEY (user_…) and "
                "RUNPOD_S3_SECRET_KEY (rps_…) must be one key of the account that owns it, and this machine's clock right"
            ) from error


@contextlib.contextmanager
def _s3_words() -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise PodError(f"RunPod's S3 API: {error}") from error


def sweep(args: argparse.Namespace, world: World) -> int:
    """Remove what is half sent on a volume, after a question."""
    volume = find_volume(world.api(), args.volume)
    s3 = _client(world, volume["dataCenter"])
    _reach(s3, volume["id"])
    with _s3_words():
        halves = list(volume_upload.halves(s3, volume["id"], FOLDER))
    for one in halves:
        say(terminal.plain(f"{one.key}: {terminal.size(one.bytes)} of it are half sent"))
    if halves and not agreed("This removes them; a fill that is still at work on one begins that one again.", args.yes):
        return 1
    with _s3_words():
        volume_upload.sweep(s3, volume["id"], halves)
    total = sum(one.bytes for one in halves)
    if args.json:
        print(json.dumps({"id": volume["id"], "files": [one.key for one in halves], "bytes": total}, indent=1))
    else:
        print(f"{terminal.size(total)} are removed" if halves else "nothing is half sent")
    return 0


def _files(settings: Settings, sources: Sources, tier: str) -> list[File]:
    path = Path(settings.model_catalogue)
    if not path.exists():
        path = Path(catalogues.__file__).with_name("catalogue.toml")
    catalogue = catalogues.read(path)
    asked = asked_for(catalogue, settings)
    models = for_tier(asked, settings, tier if settings.gpu_tier == "auto" else settings.gpu_tier)
    for model in asked:
        if model not in models:
            tiers = " or ".join(model.tiers)
            note(f"{model.id} is left out: it is for {tiers}; --gpu-tier {model.tiers[0]} brings it")
    if addresses := [name.partition("?")[0] for name in listed(settings.models) if is_address(name)]:
        note(f"{', '.join(addresses)} is left out: a model by address is for a pod's own fetch")
    wanted = {name for model in models for name in model.files}
    found: list[File] = []
    for file in catalogue.files:
        if file.id not in wanted:
            continue
        if isinstance(file.source, Snapshot):
            found += parts(file, catalogue.listings.get(file.id) or sources.list(file.source))
        else:
            found.append(file)
    return found


def _client(world: World, data_center: str) -> S3Client:
    from botocore.config import Config

    from hearmeman.sync.client import client_config, session

    access, secret = (world.environ.get(f"RUNPOD_S3_{name}", "") for name in ("ACCESS_KEY", "SECRET_KEY"))
    if not (access and secret):
        raise UsageError(
            "set RUNPOD_S3_ACCESS_KEY and RUNPOD_S3_SECRET_KEY: RunPod's console makes them under Settings, S3 API Keys"
        )
    if data_center not in DATA_CENTERS:
        raise UsageError(
            f"RunPod has no S3 API in {data_center}, only in {', '.join(sorted(DATA_CENTERS))}: fill this volume from a pod, "
            "with `hearmeman models fetch`"
        )
    address = world.environ.get("RUNPOD_S3_URL") or f"https://s3api-{data_center.lower()}.runpod.io/"
    # Putting the parts of a large file together may take longer than any usual patience.
    patient: Any = Config(
        region_name=data_center.lower(), read_timeout=7200, retries={"mode": "standard", "total_max_attempts": 5}
    )
    client: S3Client = session().client(
        "s3",
        endpoint_url=address,
        region_name=data_center.lower(),
        aws_access_key_id=access,
        aws_secret_access_key=secret,
        config=client_config(volume_upload.AT_ONCE).merge(patient),
    )
    return client
