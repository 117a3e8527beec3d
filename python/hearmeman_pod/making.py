"""`hearmeman-pod plan | create`: what a pod would be, and the pod."""

from __future__ import annotations

import argparse
import json
import uuid

from hearmeman_pod import create as creation
from hearmeman_pod import ready, show
from hearmeman_pod.api import Api
from hearmeman_pod.formats import FORMATS
from hearmeman_pod.key import find_key
from hearmeman_pod.plan import Plan
from hearmeman_pod.planned import planned
from hearmeman_pod.say import note, say
from hearmeman_pod.signals import as_interrupt
from hearmeman_pod.world import World


def plan(args: argparse.Namespace, world: World) -> int:
    """Show what would be created."""
    has_key = bool(find_key(world.environ, world.home))
    made = planned(args, world, world.api() if has_key else None)
    if args.form:
        print(FORMATS[args.form](made.body))
    elif args.json:
        print(json.dumps(show.plan_facts(made), indent=1))
    else:
        print("\n".join(show.plan_lines(made, has_key)))
    return 0


def create(args: argparse.Namespace, world: World) -> int:
    """Create a pod and wait until it is ready; nothing is left running that was not asked for."""
    api = world.api()
    made = planned(args, world, api)
    for text in made.notes:
        note(text)
    with as_interrupt():
        return _create(args, world, api, made)


def _create(args: argparse.Namespace, world: World, api: Api, made: Plan) -> int:
    order = uuid.uuid4().hex
    pod = creation.create(api, made, say, order=order)
    say(f"pod {pod['id']} is created, ${pod['cost']:.2f} an hour")
    try:
        if not args.no_wait:
            pod = ready.wait(api, pod, world.inside, say, args.minutes * 60, args.max_price)
        else:
            ready.check_price(pod, args.max_price)
    except KeyboardInterrupt:
        # Whoever waits no longer may still want it.
        say(
            f"pod {pod['id']} keeps running and costs ${pod['cost']:.2f} an hour; end it: hearmeman-pod "
            f"terminate {pod['id']}"
        )
        raise
    except BaseException:
        if args.keep:
            say(f"--keep: pod {pod['id']} keeps running and costs ${pod['cost']:.2f} an hour")
        else:
            creation.terminate(api, pod["id"], say)
        creation.sweep(api, order, pod["id"], say)
        raise
    creation.sweep(api, order, pod["id"], say)
    if args.json:
        print(json.dumps(show.pod_facts(pod, world), indent=1))
    else:
        print("\n".join(show.pod_lines(pod, world)))
    return 0
