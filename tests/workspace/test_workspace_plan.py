"""SYNC_WORKSPACE in the boot plan: who restores, with which keys, and what ComfyUI waits for."""

from __future__ import annotations

import pytest

from hearmeman.users import COMFYUI, WORKSPACE
from support.planning import SECRET, SYNC, machine, planned


def test_comfyui_starts_after_its_settings_and_nodes_are_back() -> None:
    plan = planned({**SECRET, "SYNC_WORKSPACE": "true"})
    processes = {process.name: process for process in plan.processes}
    assert processes["comfyui"].after == ("workspace", "added")
    assert processes["added"].after == processes["inputs"].after == ("workspace",)
    assert all(processes[name].once for name in ("workspace", "added", "inputs"))


def test_foreign_code_that_is_fetched_again_gets_no_key() -> None:
    plan = planned({**SECRET, "SYNC_WORKSPACE": "true"})
    processes = {process.name: process for process in plan.processes}
    assert (processes["added"].user, processes["added"].secrets) == (COMFYUI, {})
    for name in ("workspace", "inputs"):
        assert processes[name].user == WORKSPACE
        assert set(processes[name].secrets) == {"R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY"}
    assert not any("secret" in value for process in plan.processes for value in process.env.values())


@pytest.mark.parametrize("environ", [{}, {"SYNC_WORKSPACE": "true"}, SYNC])
def test_without_both_variables_nothing_waits(environ: dict[str, str]) -> None:
    plan = planned(environ, machine())
    assert not {"workspace", "added", "inputs"} & {process.name for process in plan.processes}
    assert next(process for process in plan.processes if process.name == "comfyui").after == ()
    warned = any("SYNC_WORKSPACE=true has no effect" in warning for warning in plan.warnings)
    assert warned == ("SYNC_WORKSPACE" in environ)
