"""Endpoints: what is asked of RunPod fits its schema, an endpoint is made once, a row is queued once and saved once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.runpod import KEY
from hearmeman_pod import schema
from hearmeman_pod.endpoint_plan import POOLS

from .conftest import Operator

ROWS = [{"workflow": "z", "set": {"prompt": text}} for text in ("one", "fail", "three")]


def created(operator: Operator, *words: str) -> str:
    code, _, err = operator("endpoint", "create", "--name", "films", *words)
    assert code == 0, err
    return next(iter(operator.runpod.endpoints))


def test_a_plan_is_a_worker_behind_the_queue(operator: Operator) -> None:
    code, out, err = operator("endpoint", "plan", "--name", "films", "--set", "WAN_480P=true", "--secret", "HF_TOKEN")
    assert code == 0, err
    body = json.loads(out)
    assert schema.problems("CreateEndpointRequest", body) == []
    assert (body["type"], body["args"], body["scaling"]) == (
        "QUEUE",
        "worker",
        {"type": "QUEUE_DELAY", "queueDelay": 4},
    )
    assert "@sha256:" in body["image"] and body["gpu"]["minCudaVersion"] == "12.8"
    assert body["env"]["HF_TOKEN"] == "{{ RUNPOD_SECRET_hf_token }}"
    assert body["workers"] == {"min": 0, "max": 3, "idleTimeout": 10}
    assert "fetches" in err


def test_a_voice_api_stands_behind_the_load_balancer(operator: Operator) -> None:
    code, out, err = operator("endpoint", "plan", "--api", "chatterbox", "--secret", "ACCESS_TOKEN")
    assert code == 0, err
    body = json.loads(out)
    assert (body["type"], body["ports"]) == ("LOAD_BALANCER", ["8000/http"])
    assert body["env"]["CHATTERBOX_HOST"] == "0.0.0.0" and body["env"]["PORT_HEALTH"] == "8000"
    assert "args" not in body and "ACCESS_TOKEN" not in body["env"]


@pytest.mark.parametrize(
    "words",
    [["--pool", "AMPERE_25"], ["--workers-max", "0"], ["--idle-seconds", "0"], [f"--pool={p}" for p in POOLS][:4]],
)
def test_what_runpod_would_refuse_is_not_sent(operator: Operator, words: list[str]) -> None:
    flat = [word for text in words for word in text.split("=")]
    code, _, _ = operator("endpoint", "create", "--name", "films", *flat)
    assert code == 2
    assert not operator.runpod.endpoints


def test_an_answer_that_is_lost_makes_one_endpoint(operator: Operator) -> None:
    operator.runpod.creates.append("drop-after")
    created(operator)
    assert len(operator.runpod.endpoints) == 1
    code, _, err = operator("endpoint", "create", "--name", "films")
    assert code == 2 and "exists" in err
    assert len(operator.runpod.endpoints) == 1


def test_status_shows_queue_and_workers_and_no_environment(operator: Operator) -> None:
    created(operator)
    code, out, _ = operator("endpoint", "status", "films")
    assert code == 0 and "0 to 3 workers" in out and "0 in the queue" in out and "@sha256:" in out
    assert "newest settings" not in out
    operator.runpod.rollout = (1, 3)
    code, out, _ = operator("endpoint", "status", "films")
    assert code == 0 and "1 of 3 workers have the newest settings" in out
    code, out, _ = operator("endpoint", "list", "--json")
    assert code == 0 and "env" not in json.loads(out)[0]


def test_a_job_is_run_and_its_files_stay_in_their_folder(operator: Operator, tmp_path: Path) -> None:
    made = created(operator)
    code, out, err = operator("endpoint", "run", made, "z", "--set", "prompt=a cat", "--out", str(tmp_path / "o"))
    assert code == 0, err
    files = [tmp_path / "o/job0/a.png", tmp_path / "o/job0/a-2.png"]
    assert out.split() == [str(path) for path in files]
    assert [path.read_bytes() for path in files] == [b"picture"] * 2
    code, _, err = operator("endpoint", "run", made, "z", "--set", "prompt=fail")
    assert code == 1 and "out of memory" in err


_SDK = """
import json, os, runpod, sys
endpoint = runpod.Endpoint(sys.argv[1], api_key=os.environ["RUNPOD_API_KEY"])
job = endpoint.run({"workflow": "z", "set": {"prompt": "a cat"}})
states = [job.status(), job.output(timeout=30), job.status()]
other = endpoint.run({"workflow": "z"})
print(json.dumps([job.job_id, *states, endpoint.health()["jobs"]["inQueue"], other.cancel()["status"]]))
"""


def test_runpods_own_sdk_asks_what_we_ask_and_finds_the_same(operator: Operator, tmp_path: Path) -> None:
    made = created(operator)
    environ = {**os.environ, "RUNPOD_ENDPOINT_BASE_URL": f"{operator.runpod.url}/v2", "RUNPOD_API_KEY": KEY}
    done = subprocess.run([sys.executable, "-c", _SDK, made], env=environ, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    job, first, output, last, waiting, cancelled = json.loads(done.stdout)
    assert (first, last, waiting, cancelled) == ("IN_PROGRESS", "COMPLETED", 1, "CANCELLED")
    assert set(output) == {"images", "texts"}
    assert operator("endpoint", "collect", made, job, "--out", str(tmp_path / "o"))[0] == 0
    assert (tmp_path / "o" / job / "a.png").read_bytes() == b"picture"
    assert operator("endpoint", "run", made, "z", "--set", "prompt=a cat", "--out", str(tmp_path / "o"))[0] == 0
    asked = [body for method, path, body in operator.runpod.requests if (method, path) == ("POST", f"/v2/{made}/run")]
    assert asked[0] == asked[2] == {"input": {"workflow": "z", "set": {"prompt": "a cat"}}}


def batch(operator: Operator, tmp_path: Path, *words: str) -> tuple[int, dict[str, object], str]:
    file = tmp_path / "jobs.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in ROWS))
    code, out, err = operator("endpoint", "batch", "films", str(file), "--out", str(tmp_path / "o"), "--json", *words)
    return code, json.loads(out) if out else {}, err


def test_a_batch_runs_each_row_once_and_says_which_failed(operator: Operator, tmp_path: Path) -> None:
    created(operator)
    code, found, err = batch(operator, tmp_path)
    assert code == 3, err
    assert (found["done"], found["failed"]) == (2, 1)
    assert (tmp_path / "o/1/a.png").is_file() and (tmp_path / "o/3/a-2.png").is_file()
    assert batch(operator, tmp_path)[0] == 3
    assert len(operator.runpod.jobs) == 3
    batch(operator, tmp_path, "--retry")
    assert len(operator.runpod.jobs) == 4


def test_a_batch_that_was_cut_off_goes_on_with_what_it_queued(operator: Operator, tmp_path: Path) -> None:
    created(operator)
    batch(operator, tmp_path)
    journal = tmp_path / "o/endpoint-batch.jsonl"
    kept = [line for line in journal.read_text().splitlines() if '"done"' not in line and '"failed"' not in line]
    journal.write_text("\n".join(kept) + "\n")
    code, found, _ = batch(operator, tmp_path)
    assert (code, found["done"]) == (3, 2)
    assert len(operator.runpod.jobs) == 3


def test_a_row_whose_answer_is_lost_is_not_queued_twice(operator: Operator, tmp_path: Path) -> None:
    created(operator)
    operator.runpod.lost.append("drop-after")
    code, found, _ = batch(operator, tmp_path)
    assert (code, found["failed"]) == (3, 2)
    batch(operator, tmp_path)
    assert len(operator.runpod.jobs) == 3


def test_a_file_that_is_no_batch_sends_nothing(operator: Operator, tmp_path: Path) -> None:
    created(operator)
    (tmp_path / "bad.jsonl").write_text('{"workflow": "z"}\nnot json\n')
    code, _, err = operator("endpoint", "batch", "films", str(tmp_path / "bad.jsonl"))
    assert code == 2 and "line 2" in err
    assert not operator.runpod.jobs


def test_an_endpoint_with_workers_is_emptied_and_deleted(operator: Operator) -> None:
    made = created(operator)
    assert operator("endpoint", "delete", made)[0] == 2
    assert operator("endpoint", "delete", made, "--yes")[0] == 0
    assert not operator.runpod.endpoints


def test_a_job_shows_its_steps_and_never_goes_back(operator: Operator, tmp_path: Path) -> None:
    created(operator)
    operator.runpod.progress = (
        {"number": 2, "state": "running", "node": "3", "class_type": "KSampler", "step": 5, "steps": 20},
        {"number": 1, "state": "preparing"},
        {"number": 3, "state": "running", "node": "3", "class_type": "KSampler", "step": 20, "steps": 20},
        {"number": 4, "state": "uploading"},
    )
    code, _, err = operator("endpoint", "run", "films", "z", "--out", str(tmp_path / "o"))
    assert code == 0, err
    said = [line.partition("job job0: ")[2] for line in err.splitlines() if "job job0: " in line]
    assert said == ["running", "running KSampler 5/20", "running KSampler 20/20", "uploading"]


def test_a_job_that_failed_is_queued_again_under_its_id(operator: Operator, tmp_path: Path) -> None:
    created(operator)
    out_words = ("--out", str(tmp_path / "o"))
    assert operator("endpoint", "run", "films", "z", "--set", "prompt=fail", *out_words)[0] == 1
    code, out, err = operator("endpoint", "retry", "films", "job0", *out_words)
    assert code == 0, err
    assert (len(operator.runpod.jobs), out.split()[0]) == (1, str(tmp_path / "o/job0/a.png"))
    code, _, err = operator("endpoint", "retry", "films", "job0", *out_words)
    assert code == 1 and "Only jobs that failed or timed out" in err


def test_a_job_that_took_too_long_is_collected_later(operator: Operator, tmp_path: Path) -> None:
    created(operator)
    words = ("--out", str(tmp_path / "o"))
    code, _, err = operator("endpoint", "run", "films", "z", "--minutes", "0.0001", *words)
    assert code == 1 and "endpoint collect" in err
    code, _, err = operator("endpoint", "collect", "films", "job0", *words)
    assert code == 0 and (tmp_path / "o/job0/a.png").is_file(), err
    code, _, err = operator("endpoint", "collect", "films", "job7", *words)
    assert code == 2 and "knows no job job7" in err


def test_the_queue_is_emptied_and_a_job_cancelled(operator: Operator) -> None:
    created(operator)
    for _ in range(3):
        operator("endpoint", "run", "films", "z", "--minutes", "0.0001")
    running = [job for job, facts in operator.runpod.jobs.items() if facts["status"] == "IN_PROGRESS"]
    for job in list(operator.runpod.jobs)[1:]:
        operator.runpod.jobs[job]["status"] = "IN_QUEUE"
    code, _, err = operator("endpoint", "purge-queue", "films")
    assert code == 2 and "drops the 2 jobs" in err and "--yes" in err
    code, out, _ = operator("endpoint", "purge-queue", "films", "--yes", "--json")
    assert (code, json.loads(out)) == (0, {"removed": 2})
    assert operator.runpod.jobs[running[0]]["status"] == "IN_PROGRESS"
    assert operator("endpoint", "cancel", "films", running[0])[0] == 0
    assert operator.runpod.jobs[running[0]]["status"] == "CANCELLED"


def test_a_voice_api_has_an_address_and_no_jobs(operator: Operator) -> None:
    code, out, _ = operator("endpoint", "create", "--name", "films", "--api", "xtts")
    assert code == 0 and "https://ep0.api.runpod.ai" in out
    code, out, _ = operator("endpoint", "status", "films")
    assert code == 0 and "https://ep0.api.runpod.ai" in out
    code, _, err = operator("endpoint", "run", "films", "z")
    assert code == 2 and "has no jobs" in err
