"""`hearmeman-pod endpoint run | collect | retry | cancel | purge-queue | batch`: jobs of an endpoint, and their files."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import httpx2

from hearmeman_pod import endpoint_batch, endpoint_known
from hearmeman_pod.errors import ApiError, PodError, UsageError
from hearmeman_pod.jobs import Jobs, reason, save, wait
from hearmeman_pod.planned import pair
from hearmeman_pod.say import agreed, say
from hearmeman_pod.world import World

PARTLY = 3


def run(args: argparse.Namespace, world: World) -> int:
    """Queue one job, show where it is, and save its files."""
    jobs = _queue(args, world)
    content: dict[str, Any] = {"workflow": args.workflow}
    if chosen := dict(pair(text, "--set") for text in args.set):
        content["set"] = chosen
    job = jobs.submit(content)
    say(f"job {job} is queued")
    return _finish(args, jobs, job)


def collect(args: argparse.Namespace, world: World) -> int:
    """Wait for a job that was queued before, and save its files."""
    return _finish(args, _queue(args, world), args.job, mine=False)


def retry(args: argparse.Namespace, world: World) -> int:
    """Queue a job again that failed or took too long, under its own id."""
    jobs = _queue(args, world)
    try:
        jobs.retry(args.job)
    except ApiError as error:
        if error.status != 400:
            raise
        raise PodError(
            f"{error}\nOnly jobs that failed or timed out can be queued again, while RunPod keeps them"
        ) from error
    say(f"job {args.job} is queued again")
    return _finish(args, jobs, args.job)


def cancel(args: argparse.Namespace, world: World) -> int:
    """Take a job out of the queue, or end it."""
    _queue(args, world).cancel(args.job)
    print(json.dumps({"job": args.job, "cancelled": True}) if args.json else f"job {args.job} is cancelled")
    return 0


def purge(args: argparse.Namespace, world: World) -> int:
    """Take all jobs out of the queue that no worker has begun."""
    api = world.api()
    found = endpoint_known.one(api, args.endpoint)
    jobs = endpoint_known.queue(world, found)
    waiting = jobs.health().get("jobs", {}).get("inQueue", 0)
    name = endpoint_known.plain_name(found)
    if not agreed(f"This drops the {waiting} jobs waiting in the queue of {name}; those running continue.", args.yes):
        return 1
    removed = jobs.purge()
    print(json.dumps({"removed": removed}) if args.json else f"{removed} jobs were removed from the queue of {name}")
    return 0


def batch(args: argparse.Namespace, world: World) -> int:
    """Queue a file of jobs, and save their files."""
    rows = endpoint_batch.read_rows(args.file)
    jobs = _queue(args, world)
    with httpx2.Client(timeout=60.0) as client:
        events = endpoint_batch.run(jobs, rows, args.out, client, say, args.retry)
    failed = [event for event in events if event["state"] != "done"]
    if args.json:
        print(json.dumps({"done": len(events) - len(failed), "failed": len(failed), "rows": events}, indent=1))
    else:
        for event in failed:
            print(f"row {event['row']} failed: {event['why']}")
        print(f"{len(events) - len(failed)} of {len(events)} done, in {args.out}")
    return PARTLY if failed else 0


def _queue(args: argparse.Namespace, world: World) -> Jobs:
    return endpoint_known.queue(world, endpoint_known.one(world.api(), args.endpoint))


def _finish(args: argparse.Namespace, jobs: Jobs, job: str, mine: bool = True) -> int:
    """Wait until a job has ended and save its files. Ctrl-C cancels it where it is `mine`."""
    try:
        state = wait(jobs, job, say, args.minutes * 60)
    except KeyboardInterrupt:
        if mine:
            jobs.cancel(job)
            say(f"job {job} is cancelled")
        raise
    except ApiError as error:
        if error.status != 404:
            raise
        raise UsageError(
            f"RunPod knows no job {job} of this endpoint: it keeps a result for half an hour after the job's end"
        ) from error
    if why := reason(state):
        raise PodError(f"job {job} is {state['status']}: {why}")
    folder: Path = args.out / job
    with httpx2.Client(timeout=60.0) as client:
        names = save(state.get("output"), folder, client)
    seconds = (state.get("executionTime") or 0) / 1000
    say(f"job {job} is done; it ran for {seconds:.1f} s")
    if args.json:
        print(json.dumps({"job": job, "seconds": seconds, "files": [str(folder / name) for name in names]}))
    else:
        print("\n".join(str(folder / name) for name in names) or "the job made no files")
    return 0
