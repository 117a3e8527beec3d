"""Makes one pod and never two: each candidate GPU is asked for once, and what may have been made is found before the next."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hearmeman_pod.api import Api, pod_path
from hearmeman_pod.errors import ApiError, NoCapacityError, PodError, UnknownOutcomeError, UsageError
from hearmeman_pod.gpus import Gpu
from hearmeman_pod.plan import ORDER, Plan

Pod = Mapping[str, Any]
"""A pod as the API gives it."""

_LOOKS = 6
_LOOK_PAUSE = 5.0
"""After a create without an answer the list is looked at this often: a pod may appear in it late."""
_TERMINATE_TRIES = 6
_TERMINATE_PAUSE = 1.0
"""Seconds, doubled from try to try."""


def pods(api: Api) -> list[Pod]:
    """All pods of the account that are not gone."""
    found = api.get("/v2/pods", "list the pods")
    return [pod for pod in found["pods"] if pod["status"] != "TERMINATED"]


def create(
    api: Api,
    plan: Plan,
    say: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
    order: str = "",
) -> Pod:
    """Create the planned pod on the first GPU that is free; the pod, which may still be starting.

    Raises:
        UsageError: a pod of this name exists.
        NoCapacityError: no candidate was free; nothing was created.
        ApiError: RunPod refused for a reason that no other candidate changes.
        PodError: whether something was created cannot be found out; the message says how to look.
    """
    name = plan.body["name"]
    for pod in pods(api):
        if pod["name"] == name:
            raise UsageError(
                f"a pod named {name} exists ({pod['id']}, {pod['status']}, ${pod['cost']:.2f} an hour): nothing was "
                f"created. Give another --name, or end it: hearmeman-pod terminate {pod['id']}"
            )
    trial = _Trial(api, plan, order or uuid.uuid4().hex, say, sleep)
    try:
        made = trial.run()
        if trial.unanswered:
            sweep(api, trial.order, made["id"], say, sleep)
    except BaseException as error:
        if trial.doubt:
            _end_doubtful(trial, _LOOKS if isinstance(error, KeyboardInterrupt) else 1)
        raise
    return made


@dataclass
class _Trial:
    """One create, which asks for one GPU after the other."""

    api: Api
    plan: Plan
    order: str
    say: Callable[[str], None]
    sleep: Callable[[float], None]
    doubt: bool = False
    """Whether a pod of this create may exist that nobody has the id of."""
    unanswered: bool = False
    """Whether RunPod left a request without an answer, and nothing was found: its pod may appear later."""

    def run(self) -> Pod:
        refusals: list[str] = []
        count = self.plan.body["gpu"]["count"]
        for gpu in self.plan.choices:
            self.say(f"asking for {gpu.id}" + (f" at ${gpu.price * count:.2f} an hour" if gpu.price else ""))
            try:
                made = self._ask(gpu)
            except ApiError as error:
                self.doubt = self.unanswered
                if error.status not in (400, 403):
                    raise
                why = "; ".join((error.detail or error.title, *error.errors))
                refusals.append(f"{gpu.id}: {why}")
                self.say(f"not available: {why}")
                continue
            if made is not None:
                return made
            self.unanswered = True
            refusals.append(f"{gpu.id}: RunPod failed to make it")
        raise NoCapacityError(
            "RunPod could not place the pod on any of these GPUs, and nothing was created:\n"
            + "\n".join(f"  {text}" for text in refusals)
            + "\nIf all say the same, the request is at fault; otherwise try again later, or allow more with --gpu"
        )

    def _ask(self, gpu: Gpu) -> Pod | None:
        """Ask once. Without an answer, look until it is known what came of it; None when nothing did."""
        action = f"create the pod on {gpu.id}"
        self.doubt = True
        try:
            made: Pod = self.api.change("POST", "/v2/pods", action, self.plan.body_for(gpu, self.order))
            if not {"id", "status", "cost"} <= set(made):
                raise UnknownOutcomeError("RunPod's answer to the create describes no pod")
            return made
        except UnknownOutcomeError as error:
            self.say(f"{error}: checking whether it was created")
            problem = error
        for _ in range(_LOOKS):
            try:
                found = ordered(self.api, self.order)
            except PodError as error:
                raise PodError(
                    f"{problem}, and the list of pods cannot be read ({error}). A pod named {self.plan.body['name']} "
                    "may exist and cost money: look in RunPod's console, or run `hearmeman-pod list` when the "
                    "network is back"
                ) from error
            if found:
                self.say(f"it was created: {found[0]['id']}")
                for extra in found[1:]:
                    terminate(self.api, extra["id"], self.say, self.sleep)
                return found[0]
            self.sleep(_LOOK_PAUSE)
        return None


def _end_doubtful(trial: _Trial, looks: int) -> None:
    """End what a create may have made before it was interrupted or failed; RunPod may list it late."""
    trial.say("checking whether a pod was created, to end it")
    try:
        for number in range(looks):
            if number:
                trial.sleep(_LOOK_PAUSE)
            found = ordered(trial.api, trial.order)
            for pod in found:
                terminate(trial.api, pod["id"], trial.say, trial.sleep)
            if found:
                return
    except BaseException:
        trial.say(
            f"A POD NAMED {trial.plan.body['name']} MAY STILL RUN AND COST MONEY: see `hearmeman-pod list`, and end it "
            "with `hearmeman-pod terminate ID`"
        )
        raise


def sweep(
    api: Api, order: str, spare: str, say: Callable[[str], None], sleep: Callable[[float], None] = time.sleep
) -> None:
    """End pods of one create that RunPod listed only after another had taken their place, but `spare`.

    Raises:
        PodError: one was found and could not be terminated.
    """
    try:
        found = [pod["id"] for pod in ordered(api, order) if pod["id"] != spare]
    except PodError as error:
        say(f"whether RunPod made a second pod could not be looked up ({error}): see `hearmeman-pod list`")
        return
    for pod_id in found:
        say(f"RunPod created {pod_id} too, after all")
        terminate(api, pod_id, say, sleep)


def ordered(api: Api, order: str) -> list[Pod]:
    """The pods that carry the mark of one create."""
    return [pod for pod in pods(api) if (pod.get("env") or {}).get(ORDER) == order]


def terminate(api: Api, pod_id: str, say: Callable[[str], None], sleep: Callable[[float], None] = time.sleep) -> None:
    """End a pod for good, and make sure that it is gone.

    Raises:
        PodError: it may still run; the message shouts.
    """
    last: PodError | None = None
    for number in range(_TERMINATE_TRIES):
        if number:
            sleep(_TERMINATE_PAUSE * 2.0**number)
        try:
            api.change("DELETE", pod_path(pod_id), f"terminate {pod_id}")
        except ApiError as error:
            if error.status == 404:
                break
            last = error
            continue
        except PodError as error:
            # Carried out or not, a second DELETE does no harm.
            last = error
            continue
        break
    else:
        raise PodError(
            f"POD {pod_id} COULD NOT BE TERMINATED AND STILL COSTS MONEY: {last}\n"
            f"End it in RunPod's console, or with: hearmeman-pod terminate {pod_id}"
        )
    say(f"{pod_id} is terminated")
