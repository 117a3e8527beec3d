"""What a pod's state means to a person: one word, and every warning with what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from hearmeman.status import judge
from hearmeman.storage import Mount
from hearmeman.tune.flags import load_flags
from hearmeman.tune.machine import Gpu, Memory
from hearmeman.tune.tuner import tune
from support.planning import SYNC, machine, planned

FOUND: dict[str, Any] = {
    "boot": {"pod": "p1"},
    "ready": False,
    "ready_why": "ComfyUI does not answer at http://127.0.0.1:8188 (refused)",
    "problem": "",
    "processes": [],
    "not_working": {},
    "failed_nodes": {},
    "models": None,
    "sync": None,
    "machine": None,
    "warnings": [],
}


def running(**keep: object) -> dict[str, Any]:
    """A pod whose ComfyUI is as the report of its wrapper says."""
    return {**FOUND, "processes": [{"name": "comfyui", "statename": "RUNNING", "keep": keep}]}


def test_why_it_does_not_stay_up_is_said_while_it_is_tried_again_too() -> None:
    ended = {"exit": 1, "why": "", "last_line": "ModuleNotFoundError: No module named 'torchsde'", "starts": 4}
    down, tried = (judge.state(running(**ended, pid=pid), 0.0) for pid in (None, 77))
    assert down == tried
    assert (down.word, down.headline) == ("failing", "ComfyUI does not stay up")
    assert down.detail == "it ended with exit 1; its last line: ModuleNotFoundError: No module named 'torchsde'"


@pytest.mark.parametrize(
    ("keep", "word"),
    [
        ({}, "starting"),
        ({"waits": "nodes is not done yet"}, "starting"),
        ({"pid": 7, "starts": 1}, "starting"),
        ({"pid": 8, "starts": 2, "exit": 1}, "starting"),
        ({"pid": 9, "starts": 3, "exit": 1}, "failing"),
        ({"pid": None, "starts": 1, "exit": 1}, "failing"),
    ],
)
def test_starting_is_a_state_of_its_own(keep: dict[str, Any], word: str) -> None:
    assert judge.state(running(**keep), 0.0).word == word


def _warnings() -> Iterable[str]:
    """Give what plan and tuner warn of, each kind once."""
    alone = {"COMFYUI_COMMIT": "another", "SAGE_ATTENTION": "true", "UPDATE_NODES_ON_START": "true"}
    alone |= {"MAX_MINUTES": "60", "SYNC_WORKSPACE": "true", "ENABLE_TELEPORT": "true", "MODEL": "x"}
    alone |= {"PUBLIC_KEY": "no key", "VOLUME_SIZE_GB": "10"}
    poor = machine(
        volume_is_mount=False, not_separate="it is so", ownerless="Operation not permitted", volume_used=0.99
    )
    yield from planned(alone, poor).warnings
    yield from planned({**SYNC, "SYNC_DRAIN_SECONDS": "500"}).warnings
    theirs = {"RUNPOD_POD_ID": "p1", "RUNPOD_API_KEY": "rp-secret", "MAX_MINUTES": "60", "RUNPOD_VOLUME_ID": "v"}
    yield from planned(theirs).warnings
    flags, gib = load_flags(), 1 << 30
    network = Mount("/workspace", "nfs4")
    cases: list[tuple[tuple[Gpu, ...], dict[str, Any]]] = [
        ((), {}),
        ((Gpu("a card", 4096),), {"tier": "datacenter", "voices": ("XTTS", "Chatterbox")}),
        ((Gpu("a card", 24564), Gpu("a card", 24564)), {}),
    ]
    for gpus, wishes in cases:
        yield from tune(
            Memory(gpus, "" if gpus else "no driver", None, 64 * gib, models=network), flags, **wishes
        ).warnings


def test_every_warning_says_what_to_do() -> None:
    warnings = list(dict.fromkeys(_warnings()))
    assert len(warnings) >= 17, warnings
    found = judge.problems({**FOUND, "warnings": warnings}, 0.0)
    without = [one.what for one in found if one.level == "warning" and not one.fix]
    assert without == []
