"""What `hearmeman-pod volume` does: list, make and delete network volumes, and fill one before a GPU is paid for."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hearmeman.models import catalogue as catalogues
from hearmeman.models.asked import asked_for, for_tier
from hearmeman.models.catalogue import File, Snapshot, parts
from hearmeman.models.http import Http
from hearmeman.models.sources import Sources
from hearmeman.settings import Settings, load
from hearmeman_pod import volume_account
from hearmeman_pod.errors import UsageError
from hearmeman_pod.planned import pair, volumes
from hearmeman_pod.planned import volume as volume_of
from hearmeman_pod.say import say
from hearmeman_pod.volume_fill import Filler, Outcome
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


def run(args: argparse.Namespace, world: World) -> int:
    """Run one of the actions."""
    if args.action == "create":
        return volume_account.create(args, world, DATA_CENTERS)
    return {"list": _list, "fill": _fill, "delete": volume_account.delete}[args.action](args, world)


def _list(args: argparse.Namespace, world: World) -> int:
    found = volumes(world.api())
    if args.json:
        print(json.dumps(found, indent=1))
    else:
        print(
            "\n".join(f"{one['id']}  {one['name']}  {one['size']} GB  {one['dataCenter']}" for one in found)
            or "no volumes"
        )
    return 0


def _fill(args: argparse.Namespace, world: World) -> int:
    found = volume_of(world.api(), args.volume)
    environ = {name: world.environ[name] for name in _FROM_HERE if world.environ.get(name)}
    settings = load({**environ, **dict(pair(text, "--set") for text in args.set)})
    sources = Sources(settings, Http(4, 60.0))
    files = _files(settings, sources, args.gpu_tier)
    if not files:
        raise UsageError(
            "these settings ask for no model: give --set MODELS=ID,… or a toggle such as --set WAN_480P=true"
        )
    needed = sum(file.expected for file in files)
    if needed * MARGIN > found.size * 1e9:
        raise UsageError(
            f"the models need {needed * MARGIN / 1e9:.0f} GB and volume {found.id} has {found.size}: enlarge "
            "it, or enable fewer models"
        )
    say(f"{len(files)} files, {needed / 1e9:.1f} GB, to volume {found.id} in {found.data_center}")
    filler = Filler(_client(world, found.data_center), found.id, sources, say)
    outcomes = []
    for file in files:
        outcomes.append(filler.fill(file))
        say(_line(outcomes[-1]))
    failed = [one for one in outcomes if one.state == "failed"]
    if args.json:
        print(json.dumps([dataclasses.asdict(one) for one in outcomes], indent=1))
    else:
        print(
            f"{len(outcomes) - len(failed)} of {len(outcomes)} files are on the volume"
            + (": run the same command again to continue" if failed else "")
        )
    return (PARTLY if len(failed) < len(outcomes) else 1) if failed else 0


def _line(one: Outcome) -> str:
    if one.state == "failed":
        return f"{one.key} failed: {one.why}"
    return f"{one.key} is {one.state}, {one.size / 1e9:.2f} GB, verified by: {one.verified}"


def _files(settings: Settings, sources: Sources, tier: str) -> list[File]:
    path = Path(settings.model_catalogue)
    if not path.exists():
        path = Path(catalogues.__file__).with_name("catalogue.toml")
    catalogue = catalogues.read(path)
    models = for_tier(asked_for(catalogue, settings), settings, tier)
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
            f"RunPod has no S3 API in {data_center}, only in {', '.join(sorted(DATA_CENTERS))}: fill this "
            "volume from a pod, "
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
        config=client_config(4).merge(patient),
    )
    return client


def add(sub: argparse.ArgumentParser) -> None:
    """Add the actions."""
    actions = sub.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, help in (
        ("list", "the account's network volumes"),
        ("create", "create a network volume, after showing its price"),
        ("delete", "delete a network volume and all that is on it"),
        ("fill", "copy models to a network volume; run it again to fetch what is missing"),
    ):
        made = actions.add_parser(name, help=help, description=help, allow_abbrev=False)
        made.add_argument("--json", action="store_true", help="one JSON object on standard output")
        if name == "create":
            made.add_argument("name", help="its name")
            made.add_argument(
                "--size", type=int, required=True, metavar="GB", help="10 to 4096; it can grow, not shrink"
            )
            made.add_argument(
                "--datacenter", required=True, metavar="DC", help="where, such as US-KS-2: pods there can use it"
            )
        if name == "delete":
            made.add_argument("volume", help="the volume's id or name")
        if name in ("create", "delete"):
            made.add_argument("--yes", action="store_true", help="do not ask")
        if name == "fill":
            made.add_argument("volume", help="the volume's id")
            made.add_argument(
                "--set", action="append", default=[], metavar="VARIABLE=VALUE", help="as for a pod: which models"
            )
            made.add_argument(
                "--gpu-tier",
                default="consumer",
                choices=("consumer", "prosumer", "datacenter"),
                help="for models of one tier (consumer)",
            )
