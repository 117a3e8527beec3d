"""What `hearmeman-pod endpoint` does: plan, create, status, run, batch, delete."""

from __future__ import annotations

import argparse
import json
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2

from hearmeman_pod import endpoint_batch
from hearmeman_pod.api import Api
from hearmeman_pod.endpoint_plan import Serverless, endpoint_body, notes
from hearmeman_pod.errors import ApiError, PodError, UnknownOutcomeError, UsageError
from hearmeman_pod.jobs import JOBS, Jobs, reason, save, wait
from hearmeman_pod.key import find_key
from hearmeman_pod.plan import MOST_VARIABLES, ORDER
from hearmeman_pod.planned import pair, planned
from hearmeman_pod.say import say
from hearmeman_pod.world import World

PARTLY = 3
_LOOKS, _LOOK_PAUSE = 6, 5.0


def run(args: argparse.Namespace, world: World) -> int:
    """Run one of the actions."""
    return _ACTIONS[args.action](args, world)


def _plan(args: argparse.Namespace, world: World) -> int:
    body, said = _body(args, world, world.api() if args.network_volume else None)
    for note in said:
        say(f"note: {note}")
    print(json.dumps({"body": body, "notes": said} if args.json else body, indent=1))
    return 0


def _body(args: argparse.Namespace, world: World, api: Api | None) -> tuple[dict[str, Any], list[str]]:
    if args.volume is None and not args.network_volume:
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
    body = endpoint_body(made.body, wishes, args.network_volume)
    if len(body["env"]) + 1 > MOST_VARIABLES:
        raise UsageError(
            f"{len(body['env']) + 1} variables, and RunPod takes {MOST_VARIABLES}: leave some at their defaults"
        )
    return body, notes(wishes, args.network_volume, sum(size for _, size in made.models))


def _create(args: argparse.Namespace, world: World) -> int:
    api = world.api()
    body, said = _body(args, world, api)
    for note in said:
        say(f"note: {note}")
    for known in _all(api):
        if known["name"].removesuffix(" -fb") == body["name"]:
            raise UsageError(
                f"an endpoint named {body['name']} exists ({known['id']}): nothing was created. Give another --name, or "
                f"delete it: hearmeman-pod endpoint delete {known['id']}"
            )
    order = uuid.uuid4().hex
    body["env"] = {**body["env"], ORDER: order}
    try:
        found = api.change("POST", "/v2/serverless", "create the endpoint", body)
    except UnknownOutcomeError as error:
        say(f"{error}; looking whether it was made")
        found = _find(api, order)
        if found is None:
            raise PodError(
                f"{error}. RunPod's list does not show it: look again with `hearmeman-pod endpoint list`"
            ) from error
    if args.json:
        print(json.dumps(_facts(found), indent=1))
    else:
        print(f"endpoint {found['name']} ({found['id']}) is created; it costs nothing while no worker runs")
    return 0


def _find(api: Api, order: str) -> Mapping[str, Any] | None:
    for number in range(_LOOKS):
        if number:
            time.sleep(_LOOK_PAUSE)
        for known in _all(api):
            if known.get("env", {}).get(ORDER) == order:
                return known
    return None


def _all(api: Api) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = api.get("/v2/serverless", "list the endpoints")["endpoints"]
    return found


def _one(api: Api, wanted: str) -> Mapping[str, Any]:
    for known in _all(api):
        if wanted in (known["id"], known["name"], known["name"].removesuffix(" -fb")):
            return known
    raise UsageError(f"there is no endpoint {wanted} in this account; `hearmeman-pod endpoint list` shows them")


def _list(args: argparse.Namespace, world: World) -> int:
    found = _all(world.api())
    if args.json:
        print(json.dumps([_facts(one) for one in found], indent=1))
    else:
        print("\n".join(f"{one['id']}  {one['name']}  {_workers(one)}" for one in found) or "no endpoints")
    return 0


def _facts(endpoint: Mapping[str, Any]) -> dict[str, Any]:
    # Not the environment: somebody may have put a secret there by hand.
    return {key: value for key, value in endpoint.items() if key != "env"}


def _workers(endpoint: Mapping[str, Any]) -> str:
    workers = endpoint["workers"]
    return f"{workers['min']} to {workers['max']} workers"


def _status(args: argparse.Namespace, world: World) -> int:
    api = world.api()
    found = _one(api, args.endpoint)
    workers = api.get(_path(found["id"]) + "/workers", "list its workers")
    health = _jobs(world, found["id"]).health() if found.get("type") != "LOAD_BALANCER" else None
    if args.json:
        print(json.dumps({**_facts(found), "running": workers, "health": health}, indent=1))
        return 0
    print(f"{found['name']} ({found['id']}): {_workers(found)}")
    print("now: " + ", ".join(f"{number} {name}" for name, number in workers["summary"].items()))
    for word, counts in (health or {}).items():
        print(f"{word}: " + ", ".join(f"{number} {name}" for name, number in counts.items()))
    return 0


def _run(args: argparse.Namespace, world: World) -> int:
    found = _one(world.api(), args.endpoint)
    jobs = _jobs(world, found["id"])
    content: dict[str, Any] = {"workflow": args.workflow}
    if chosen := dict(pair(text, "--set") for text in args.set):
        content["set"] = chosen
    job = jobs.submit(content)
    say(f"job {job} is queued")
    try:
        state = wait(jobs, job, say, args.minutes * 60)
    except KeyboardInterrupt:
        jobs.cancel(job)
        say(f"job {job} is cancelled")
        raise
    if why := reason(state):
        raise PodError(f"job {job} is {state['status']}: {why}")
    with httpx2.Client(timeout=60.0) as client:
        names = save(state.get("output"), args.out / job, client)
    seconds = (state.get("executionTime") or 0) / 1000
    if args.json:
        print(json.dumps({"job": job, "seconds": seconds, "files": [str(args.out / job / name) for name in names]}))
    else:
        print("\n".join(str(args.out / job / name) for name in names) or "the job made no files")
    return 0


def _batch(args: argparse.Namespace, world: World) -> int:
    rows = endpoint_batch.read_rows(args.file)
    found = _one(world.api(), args.endpoint)
    with httpx2.Client(timeout=60.0) as client:
        events = endpoint_batch.run(_jobs(world, found["id"]), rows, args.out, client, say, args.retry)
    failed = [event for event in events if event["state"] != "done"]
    if args.json:
        print(json.dumps({"done": len(events) - len(failed), "failed": len(failed), "rows": events}, indent=1))
    else:
        for event in failed:
            print(f"row {event['row']} failed: {event['why']}")
        print(f"{len(events) - len(failed)} of {len(events)} done, in {args.out}")
    return PARTLY if failed else 0


def _delete(args: argparse.Namespace, world: World) -> int:
    api = world.api()
    found = _one(api, args.endpoint)
    if not args.yes:
        raise UsageError(f"this deletes {found['name']} ({found['id']}) and the jobs in its queue: give --yes to do it")
    try:
        api.change("DELETE", _path(found["id"]), "delete the endpoint")
    except ApiError as error:
        if error.status not in (400, 409, 422):
            raise
        # One with workers has to be emptied first.
        api.change("PATCH", _path(found["id"]), "end its workers", {"workers": {"min": 0, "max": 0}})
        api.change("DELETE", _path(found["id"]), "delete the endpoint")
    print(json.dumps({"id": found["id"], "deleted": True}) if args.json else f"{found['id']} is deleted")
    return 0


def _path(endpoint: str) -> str:
    return f"/v2/serverless/{quote(endpoint, safe='')}"


def _jobs(world: World, endpoint: str) -> Jobs:
    return Jobs(Api(find_key(world.environ, world.home), world.environ.get("RUNPOD_JOBS_URL") or JOBS), endpoint)


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
        made.add_argument("--workers-min", type=int, default=0, help="workers that always run, and are paid for (0)")
        made.add_argument("--workers-max", type=int, default=3, help="workers at most (3)")
        made.add_argument("--idle-seconds", type=int, default=10, help="how long a worker waits for its next job (10)")
        made.add_argument(
            "--queue-delay", type=float, default=4.0, help="seconds a job may wait before a worker is added (4)"
        )
        made.add_argument("--requests", type=int, default=1, help="with --api: requests at a time for each worker (1)")
        made.add_argument("--job-seconds", type=int, default=1800, help="how long one job may take (1800)")
        made.add_argument("--no-flashboot", action="store_true", help="start workers without RunPod's snapshots")
    action("list", "the account's endpoints")
    for name, help in (
        ("status", "one endpoint: its workers and jobs"),
        ("run", "run one job and save its files"),
        ("batch", "run a file of jobs and save their files; the same command goes on with what was interrupted"),
        ("delete", "delete an endpoint"),
    ):
        made = action(name, help)
        made.add_argument("endpoint", help="the endpoint's id or name")
        if name == "run":
            made.add_argument("workflow", help="a workflow of the image")
            made.add_argument(
                "--set", action="append", default=[], metavar="INPUT=VALUE", help="an input of the workflow"
            )
            made.add_argument("--minutes", type=float, default=60.0, help="how long to wait for it (60)")
        if name == "batch":
            made.add_argument("file", type=Path, help="a .jsonl with one job's input a line")
            made.add_argument("--retry", action="store_true", help="queue rows again that failed")
        if name in ("run", "batch"):
            made.add_argument("--out", type=Path, default=Path("out"), help="folder for the files (out)")
        if name == "delete":
            made.add_argument("--yes", action="store_true", help="do it")


_ACTIONS = {
    "plan": _plan,
    "create": _create,
    "list": _list,
    "status": _status,
    "run": _run,
    "batch": _batch,
    "delete": _delete,
}
