"""`hearmeman-pod endpoint`: its actions and their options; plans, creates, shows and deletes endpoints."""

from __future__ import annotations

import argparse
import json
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hearmeman import terminal
from hearmeman_pod import endpoint_jobs, endpoint_known, endpoint_update, options
from hearmeman_pod.api import Api
from hearmeman_pod.endpoint_plan import Serverless, endpoint_body, notes
from hearmeman_pod.errors import ApiError, PodError, UnknownOutcomeError, UsageError
from hearmeman_pod.plan import MOST_VARIABLES, ORDER
from hearmeman_pod.planned import planned
from hearmeman_pod.say import agreed, note, say
from hearmeman_pod.world import World

_LOOKS, _LOOK_PAUSE = 6, 5.0


def run(args: argparse.Namespace, world: World) -> int:
    """Run one of the actions."""
    return _ACTIONS[args.action](args, world)


def _plan(args: argparse.Namespace, world: World) -> int:
    body, said = _body(args, world, world.api() if args.network_volume else None)
    for text in said:
        note(text)
    print(json.dumps({"body": body, "notes": said} if args.json else body, indent=1))
    return 0


def _body(args: argparse.Namespace, world: World, api: Api | None) -> tuple[dict[str, Any], list[str]]:
    if not args.network_volume:
        args.volume = 0  # A worker has no volume of its own: models lie on its disk.
    made = planned(args, world, api)
    wishes = Serverless(
        api=args.api or "",
        pools=tuple(args.pool) or Serverless.pools,
        least=args.workers_min,
        most=args.workers_max,
        idle_seconds=args.idle_seconds,
        flashboot=not args.no_flashboot,
        delay_seconds=args.queue_delay,
        requests=args.requests,
        job_seconds=args.job_seconds,
    )
    volume = next((mount["volumeId"] for mount in made.body.get("mounts", {}).get("network", ())), "")
    body = endpoint_body(made.body, wishes, volume)
    if len(body["env"]) + 1 > MOST_VARIABLES:
        raise UsageError(
            f"{len(body['env']) + 1} variables, but RunPod takes at most {MOST_VARIABLES}: leave some at their defaults"
        )
    return body, notes(wishes, volume, sum(size for _, size in made.models))


def _create(args: argparse.Namespace, world: World) -> int:
    api = world.api()
    body, said = _body(args, world, api)
    for text in said:
        note(text)
    for known in endpoint_known.every(api):
        if endpoint_known.plain_name(known) == body["name"]:
            raise UsageError(
                f"an endpoint named {body['name']} exists ({known['id']}): nothing was created. Give another "
                "--name, or "
                f"change that one: hearmeman-pod endpoint update {known['id']}"
            )
    order = uuid.uuid4().hex
    body["env"] = {**body["env"], ORDER: order}
    try:
        found = api.change("POST", "/v2/serverless", "create the endpoint", body)
    except UnknownOutcomeError as error:
        say(f"{error}; checking whether it was created")
        found = _find(api, order)
        if found is None:
            raise PodError(
                f"{error}. RunPod's list does not show it: check again with `hearmeman-pod endpoint list`, and "
                "if it is not there, create it again"
            ) from error
    if args.json:
        print(json.dumps(endpoint_known.facts(found), indent=1))
    else:
        least = found["workers"]["min"]
        cost = f"{least} always run, and are paid for" if least else "it costs nothing while no worker runs"
        print(f"endpoint {body['name']} ({found['id']}) is created; {cost}")
        if args.api:
            print(f"Its address is https://{found['id']}.api.runpod.ai; RunPod's key is the bearer token")
    return 0


def _find(api: Api, order: str) -> Mapping[str, Any] | None:
    for number in range(_LOOKS):
        if number:
            time.sleep(_LOOK_PAUSE)
        for known in endpoint_known.every(api):
            if known.get("env", {}).get(ORDER) == order:
                return known
    return None


def _list(args: argparse.Namespace, world: World) -> int:
    found = endpoint_known.every(world.api())
    if args.json:
        print(json.dumps([endpoint_known.facts(one) for one in found], indent=1))
    else:
        print("\n".join(f"{one['id']}  {one['name']}  {_workers(one)}" for one in found) or "no endpoints")
    return 0


def _workers(endpoint: Mapping[str, Any]) -> str:
    workers = endpoint["workers"]
    return f"{workers['min']} to {workers['max']} workers"


def _status(args: argparse.Namespace, world: World) -> int:
    api = world.api()
    found = endpoint_known.one(api, args.endpoint)
    where = endpoint_known.path(found["id"])
    workers = api.get(f"{where}/workers", "list its workers")
    rollout = api.get(f"{where}/releases", "list its releases")["rollout"]
    health = endpoint_known.queue(world, found).health() if found.get("type") != "LOAD_BALANCER" else None
    if args.json:
        facts = {**endpoint_known.facts(found), "running": workers, "rollout": rollout, "health": health}
        print(json.dumps(facts, indent=1))
        return 0
    rows: list[tuple[str, object]] = [
        ("endpoint", f"{endpoint_known.plain_name(found)} ({found['id']}), {_workers(found)}"),
        ("image", found.get("image", "unknown")),
        ("workers", ", ".join(f"{number} {name}" for name, number in workers["summary"].items())),
    ]
    if rollout["inProgress"]:
        news = f"{rollout['workersOnLatest']} of {rollout['workersTotal']} workers have the newest settings"
        rows.append(("update", news))
    if health:
        jobs = health.get("jobs", {}).items()
        rows.append(("jobs", ", ".join(f"{number} {_JOBS.get(name, name)}" for name, number in jobs)))
    else:
        rows.append(("address", f"https://{found['id']}.api.runpod.ai"))
    print("\n".join(terminal.pairs(rows)))
    return 0


_JOBS = {"inQueue": "in the queue", "inProgress": "running"}


def _delete(args: argparse.Namespace, world: World) -> int:
    api = world.api()
    found = endpoint_known.one(api, args.endpoint)
    name = endpoint_known.plain_name(found)
    if not agreed(f"This deletes {name} ({found['id']}) and the jobs in its queue.", args.yes):
        return 1
    try:
        api.change("DELETE", endpoint_known.path(found["id"]), "delete the endpoint")
    except ApiError as error:
        if error.status not in (400, 409, 422):
            raise
        # One with workers has to be emptied first.
        api.change("PATCH", endpoint_known.path(found["id"]), "end its workers", {"workers": {"min": 0, "max": 0}})
        api.change("DELETE", endpoint_known.path(found["id"]), "delete the endpoint")
    print(json.dumps({"id": found["id"], "deleted": True}) if args.json else f"{found['id']} is deleted")
    return 0


def add(sub: argparse.ArgumentParser, wishes: Any) -> None:
    """Add the actions; `wishes` adds the options of an image and its settings."""
    actions = sub.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, help: str) -> argparse.ArgumentParser:
        made = actions.add_parser(name, help=help, description=help, allow_abbrev=False)
        made.add_argument("--json", action="store_true", help="one JSON object on standard output")
        return made

    for name, help in (
        ("plan", "show the request"),
        ("create", "create an endpoint; its first worker starts with its first job"),
    ):
        made = action(name, help)
        wishes(made)
        made.add_argument(
            "--api", choices=("xtts", "chatterbox"), help="a voice API behind a load balancer, not the worker"
        )
        made.add_argument("--pool", action="append", default=[], help="a pool of GPUs, best first (ADA_24, AMPERE_24)")
        made.add_argument(
            "--workers-min",
            type=options.whole,
            default=0,
            metavar="N",
            help="workers that always run, and are paid for (0)",
        )
        made.add_argument("--workers-max", type=options.whole, default=3, metavar="N", help="workers at most (3)")
        made.add_argument(
            "--idle-seconds",
            type=options.count,
            default=10,
            metavar="S",
            help="how long a worker waits for its next job (10)",
        )
        made.add_argument(
            "--queue-delay",
            type=options.positive,
            default=4.0,
            metavar="S",
            help="seconds a job may wait before a worker is added (4)",
        )
        made.add_argument(
            "--requests",
            type=options.count,
            default=1,
            metavar="N",
            help="with --api: requests at a time for each worker (1)",
        )
        made.add_argument(
            "--job-seconds", type=options.count, default=1800, metavar="S", help="how long one job may take (1800)"
        )
        made.add_argument("--no-flashboot", action="store_true", help="start workers without RunPod's snapshots")
    action("list", "the account's endpoints")
    for name, help in (
        ("status", "one endpoint: its workers, its jobs, and how far an update has come"),
        ("update", "change image, workers, times or variables; it shows what changes, and asks"),
        ("run", "run one job, show its progress, and save its files; Ctrl-C cancels it"),
        ("collect", "wait for a job queued earlier, and save its files"),
        ("retry", "queue a job again that failed or took too long, and save its files"),
        ("cancel", "take a job out of the queue, or end it"),
        ("purge-queue", "drop all jobs that no worker has started"),
        ("batch", "run a file of jobs and save their files; run it again to continue after an interruption"),
        ("delete", "delete an endpoint"),
    ):
        made = action(name, help)
        made.add_argument("endpoint", help="the endpoint's id or name")
        if name == "update":
            _changes(made)
        if name == "run":
            made.add_argument("workflow", help="a workflow of the image")
            made.add_argument(
                "--set", action="append", default=[], metavar="INPUT=VALUE", help="an input of the workflow"
            )
        if name in ("collect", "retry", "cancel"):
            made.add_argument("job", help="the job's id, as `run` printed it")
        if name in ("run", "collect", "retry"):
            made.add_argument(
                "--minutes", type=options.positive, default=60.0, metavar="M", help="how long to wait for it (60)"
            )
        if name == "batch":
            made.add_argument("file", type=Path, help="a .jsonl with one job's input per line")
            made.add_argument("--retry", action="store_true", help="queue failed rows again")
        if name in ("run", "collect", "retry", "batch"):
            made.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="folder for the files (out)")
        if name in ("update", "purge-queue", "delete"):
            made.add_argument("--yes", action="store_true", help="do not ask")


def _changes(sub: argparse.ArgumentParser) -> None:
    """Add what can be changed; nothing has a default, since what is not given stays."""
    which = sub.add_mutually_exclusive_group()
    which.add_argument("--image", metavar="REPOSITORY@sha256:…", help="an image by its digest")
    which.add_argument("--tier", help="the newest image of this tier in images.lock.json")
    sub.add_argument("--set", action="append", default=[], metavar="VARIABLE=VALUE", help="a variable of the workers")
    sub.add_argument(
        "--secret", action="append", default=[], metavar="VARIABLE[=NAME]", help="a variable whose value is a secret"
    )
    sub.add_argument("--unset", action="append", default=[], metavar="VARIABLE", help="remove a variable")
    sub.add_argument("--pool", action="append", default=[], help="pools of GPUs that replace the present ones")
    sub.add_argument("--workers-min", type=options.whole, metavar="N", help="workers that always run, and are paid for")
    sub.add_argument("--workers-max", type=options.whole, metavar="N", help="workers at most; 0 lets jobs wait")
    sub.add_argument("--idle-seconds", type=options.count, metavar="S", help="how long a worker waits for its next job")
    sub.add_argument(
        "--queue-delay", type=options.positive, metavar="S", help="how long a job may wait before a worker is added"
    )
    sub.add_argument(
        "--requests", type=options.count, metavar="N", help="of a voice API: requests at a time for each worker"
    )
    sub.add_argument("--job-seconds", type=options.count, metavar="S", help="how long one job may take")
    sub.add_argument("--disk", type=options.count, metavar="GB", help="a worker's disk")
    sub.add_argument("--registry", metavar="ID", help="RunPod's credentials for a private registry")
    sub.add_argument("--flashboot", action=argparse.BooleanOptionalAction, help="start workers from RunPod's snapshots")


_ACTIONS = {
    "plan": _plan,
    "create": _create,
    "list": _list,
    "status": _status,
    "update": endpoint_update.update,
    "run": endpoint_jobs.run,
    "collect": endpoint_jobs.collect,
    "retry": endpoint_jobs.retry,
    "cancel": endpoint_jobs.cancel,
    "purge-queue": endpoint_jobs.purge,
    "batch": endpoint_jobs.batch,
    "delete": _delete,
}
