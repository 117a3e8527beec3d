"""The verbs for a pod that exists: what they show, what they refuse, and that the key stays hidden."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fakes.runpod import KEY, RunPod
from hearmeman_pod import api, logs
from support.page import run_folder, served
from support.repository import ROOT

from .conftest import REFERENCE, Operator

BODY = {
    "name": "mine",
    "image": REFERENCE,
    "gpu": {"id": "NVIDIA GeForce RTX 4090", "count": 1},
    "ports": ["8188/http", "19123/http", "22/tcp"],
    "env": {"WAN_480P": "true"},
    "mounts": {"persistent": {"size": 30, "path": "/workspace"}},
}


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_LONGEST_PAUSE", 0.05)


def test_list_shows_what_costs_money(operator: Operator, runpod: RunPod) -> None:
    runpod.made(dict(BODY), "RUNNING")
    runpod.made({**BODY, "name": "resting"}, "EXITED")
    code, out, _ = operator("list")
    assert code == 0
    assert "together $0.69 an hour, $16.56 a day" in out
    assert "about $6.00 a month" in " ".join(out.split())


def test_status_shows_addresses_and_what_the_pod_says(operator: Operator, runpod: RunPod) -> None:
    runpod.made(dict(BODY), "RUNNING")
    code, out, _ = operator("status", "mine")
    assert code == 0
    assert "ComfyUI" in out and "Starting" in out
    line = "ssh -o HostKeyAlias=runpod-pod0 -p 2222 root@127.0.0.1"
    assert line in out, "an address that another pod had before raises no alarm"
    assert json.loads(operator("status", "mine", "--json")[1])["ssh"] == line


def test_what_the_pod_says_of_itself_is_read_as_the_door_says_it(
    operator: Operator, runpod: RunPod, tmp_path: Path
) -> None:
    run_dir = run_folder(tmp_path / "pod", "http://127.0.0.1:9")
    models = {"state": "fetching", "files_total": 3, "files_present": 1, "bytes_total": 8 * 10**9, "bytes_done": 10**9}
    (tmp_path / "pod/state/models.json").write_text(json.dumps({**models, "seconds_left": 90}))
    (run_dir / "idle").mkdir()
    (run_dir / "idle/idle.json").write_text(json.dumps({"ends_at": time.time() + 3000, "action": "stop"}))
    with served(run_dir, watch=False) as (url, _):
        runpod.status_page = url
        code, _, err = operator("create", "--name", "mine", "--minutes", "0.02", "--keep")
        assert code == 1 and "; models 12 % of 8 GB" in err
        _, shown, _ = operator("status", "mine")
        said = " ".join(shown.split())
        assert "1 of 3 files, 1 GB of 8 GB" in said and "1 min 30 s left" in said
        assert "stops in 50 min" in said or "stops in 49 min" in said
        assert "the volume is 97% full; delete files" in said
        assert json.loads(operator("status", "mine", "--json")[1])["pod_status"]["models"]["files_total"] == 3


def test_status_without_the_gates_token_says_what_to_set(operator: Operator, runpod: RunPod) -> None:
    runpod.made(dict(BODY), "RUNNING")
    runpod.gate = "the-token-of-the-gate"
    assert "set ACCESS_TOKEN" in operator("status", "mine")[1]
    assert json.loads(operator("status", "mine", "--json")[1])["pod_status"] is None


def test_a_pod_that_is_not_there_is_answered_with_those_that_are(operator: Operator, runpod: RunPod) -> None:
    runpod.made(dict(BODY), "RUNNING")
    code, _, err = operator("status", "nine")
    assert code == 2
    assert "pod0 (mine)" in err


def test_two_pods_of_one_name_are_not_guessed_at(operator: Operator, runpod: RunPod) -> None:
    runpod.made(dict(BODY), "RUNNING")
    runpod.made(dict(BODY), "RUNNING")
    code, _, err = operator("terminate", "mine", "--yes")
    assert (code, len(runpod.live)) == (2, 2)
    assert "pod0 or pod1" in err


def test_stop_refuses_while_comfyui_works(operator: Operator, runpod: RunPod) -> None:
    runpod.made(dict(BODY), "RUNNING")
    runpod.queue = 2
    code, _, err = operator("stop", "mine")
    assert (code, runpod.live) == (1, ["pod0"])
    assert "2 jobs to do" in err
    assert operator("stop", "mine", "--force")[0] == 0
    assert runpod.pods["pod0"].status == "EXITED"


def test_stop_refuses_while_a_voice_speaks(operator: Operator, runpod: RunPod) -> None:
    runpod.made({**BODY, "ports": [*BODY["ports"], "8020/http"]}, "RUNNING")
    runpod.queue, runpod.texts = 1, 3
    code, _, err = operator("stop", "mine")
    assert (code, runpod.live) == (1, ["pod0"])
    assert "ComfyUI has 1 job and XTTS has 3 texts to do" in err
    runpod.queue = runpod.texts = 0
    assert operator("stop", "mine")[0] == 0


def test_stop_without_the_gates_token_does_not_guess(operator: Operator, runpod: RunPod) -> None:
    runpod.made(dict(BODY), "RUNNING")
    runpod.gate = "the-token-of-the-gate"
    code, _, err = operator("stop", "mine")
    assert (code, runpod.live) == (1, ["pod0"])
    assert "set ACCESS_TOKEN" in err
    operator.token = runpod.gate
    assert operator("stop", "mine")[0] == 0


def test_start_looks_at_the_hosts_cuda_first(operator: Operator, runpod: RunPod) -> None:
    runpod.cuda = "12.4"
    runpod.made(dict(BODY), "EXITED")
    code, _, err = operator("start", "mine")
    assert (code, runpod.live) == (1, [])
    assert "CUDA 12.4, and the image needs 12.8" in err
    assert operator("start", "mine", "--force")[0] == 0


def test_an_action_that_runpod_does_not_allow_names_those_it_does(operator: Operator, runpod: RunPod) -> None:
    runpod.made(dict(BODY), "RUNNING")
    code, _, err = operator("start", "mine")
    assert code == 1
    assert "RunPod allows stop, restart, terminate, not start" in err


def test_terminate_asks_and_without_a_terminal_wants_yes(operator: Operator, runpod: RunPod) -> None:
    runpod.made(dict(BODY), "RUNNING")
    code, _, err = operator("terminate", "mine")
    assert (code, runpod.live) == (2, ["pod0"])
    assert "--yes" in err
    assert operator("terminate", "mine", "--yes")[0] == 0
    assert runpod.live == []


def test_a_log_stream_that_breaks_goes_on_where_it_was(
    operator: Operator, runpod: RunPod, monkeypatch: pytest.MonkeyPatch
) -> None:
    runpod.made(dict(BODY), "RUNNING")
    runpod.logs = ("one", "two \x1b[31mred", "three")
    runpod.cut_logs = True
    seen = []
    client = api.Api(KEY, runpod.url)
    for _, _, line in logs.follow(client, "pod0", sleep=lambda seconds: None):
        seen.append(line)
        if len(seen) == 3:
            break
    assert seen == ["one", "two red", "three"]


def test_a_log_that_says_nothing_for_long_is_followed_on(runpod: RunPod) -> None:
    runpod.made(dict(BODY), "RUNNING")
    runpod.logs, runpod.holds_logs = ("one",), 60.0

    def sleep(seconds: float) -> None:
        if len(runpod.resumed_from) > 10:
            runpod.logs = ("one", "two")

    lines = logs.follow(api.Api(KEY, runpod.url), "pod0", sleep=sleep, silence=0.2)
    assert [next(lines)[2], next(lines)[2]] == ["one", "two"]
    lines = logs.follow(api.Api(KEY, runpod.url), "pod0", forever=False, silence=0.2)
    assert [line for _, _, line in lines] == ["one", "two"], "silence is the end of what there is to read"


def test_a_log_that_breaks_at_once_is_no_empty_log(operator: Operator, runpod: RunPod) -> None:
    runpod.made(dict(BODY), "RUNNING")
    runpod.break_logs = True
    code, out, err = operator("logs", "mine")
    assert (code, out) == (1, "") and "broke" in err


def test_logs_end_by_themselves_unless_followed(operator: Operator, runpod: RunPod) -> None:
    runpod.made(dict(BODY), "RUNNING")
    code, out, _ = operator("logs", "mine")
    assert code == 0
    assert [line.split()[-1] for line in out.splitlines()] == ["image", "started"]


def test_a_template_is_made_once_and_then_updated(operator: Operator, runpod: RunPod) -> None:
    words = ("template", "--name", "mine", "--set", "WAN_480P=true", "--secret", "HF_TOKEN")
    assert "created" in operator(*words)[1]
    assert "updated" in operator(*words)[1]
    (made,) = runpod.templates.values()
    assert made["image"] == REFERENCE and made["env"]["HF_TOKEN"] == "{{ RUNPOD_SECRET_hf_token }}"
    assert made["allowedCudaVersions"] == ["12.8", "12.9", "12.10", "13.0"], "all that are as new as the image needs"


def test_an_update_takes_back_what_the_template_had(operator: Operator, runpod: RunPod) -> None:
    assert operator("template", "--name", "mine", "--registry", "reg1")[0] == 0
    assert operator("template", "--name", "mine")[0] == 0
    (made,) = runpod.templates.values()
    assert made["registry"] is None


def test_what_a_template_cannot_hold_is_said(operator: Operator, runpod: RunPod) -> None:
    code, _, err = operator("template", "--name", "mine", "--network-volume", "vol1")
    assert code == 2 and "no network volume" in err and runpod.templates == {}
    code, _, err = operator("template", "--name", "mine", "--datacenter", "US-KS-2", "--max-price", "2")
    assert code == 0 and "no --datacenter or --max-price" in err
    assert "open to anyone" in err, "what a plan notes holds for a template too"


def test_a_template_has_a_readme_of_its_variables(operator: Operator, runpod: RunPod, tmp_path: Path) -> None:
    words = ("template", "--name", "mine", "--set", "WAN_480P=true", "--secret", "HF_TOKEN", "--readme")
    code, out, err = operator(*words, "-")
    assert code == 0 and "created" in err
    (secret,) = [line for line in out.splitlines() if line.startswith("| `HF_TOKEN`")]
    assert "Secret: `{{ RUNPOD_SECRET_hf_token }}`" in secret
    (chosen,) = [line for line in out.splitlines() if line.startswith("| `WAN_480P`")]
    assert "| `true` |" in chosen and "`RUNPOD_POD_ID`" not in out
    assert operator(*words, str(tmp_path / "README.md"))[0] == 0
    assert (tmp_path / "README.md").read_text() == out
    assert operator(*words, os.devnull)[0] == 0 and Path(os.devnull).is_char_device()
    changes = len([method for method, _, _ in runpod.requests if method != "GET"])
    assert operator(*words, str(tmp_path / "none" / "README.md"))[0] == 2
    assert operator(*words, "-", "--json")[0] == 2
    assert len([method for method, _, _ in runpod.requests if method != "GET"]) == changes, "nothing was changed"


def test_ssh_and_open_print_what_they_would_run(operator: Operator, runpod: RunPod) -> None:
    runpod.made(dict(BODY), "RUNNING")
    words = json.loads(operator("ssh", "--json", "-i", "key", "mine", "--", "ls", "-l")[1])["argv"]
    assert words[:3] == ["ssh", "-i", "key"] and words[-5:] == ["-p", "2222", "root@127.0.0.1", "ls", "-l"]
    assert operator("open", "mine", "--print")[1].strip() == runpod.proxy.format(id="pod0", port=8188) + "/"


def test_a_pod_that_starts_has_an_address_once_it_runs(operator: Operator, runpod: RunPod) -> None:
    runpod.made(dict(BODY), "STARTING")
    code, _, err = operator("ssh", "mine", "--json")
    assert code == 1 and "wait until it runs" in err
    runpod.pods["pod0"].status = "RUNNING"
    assert operator("ssh", "mine", "--json")[0] == 0


def test_a_host_key_belongs_to_the_pod_and_not_to_the_address_it_had(operator: Operator, runpod: RunPod) -> None:
    runpod.made(dict(BODY), "RUNNING")
    runpod.made({**BODY, "name": "next"}, "RUNNING")
    for name, pod_id in (("mine", "pod0"), ("next", "pod1")):
        words = json.loads(operator("ssh", name, "--json")[1])["argv"]
        said = subprocess.run(["ssh", "-G", *words[1:]], capture_output=True, text=True, check=True).stdout.splitlines()
        assert f"hostkeyalias runpod-{pod_id}" in said and "stricthostkeychecking accept-new" in said


def test_a_wrong_key_is_explained_and_not_shown(operator: Operator, runpod: RunPod) -> None:
    runpod.key = "another"
    code, _, err = operator("list")
    assert code == 1
    assert "401" in err and "RUNPOD_API_KEY" in err


def test_no_key_says_where_it_is_looked_for(operator: Operator) -> None:
    operator.has_key = False
    code, _, err = operator("list")
    assert code == 2
    assert "runpodctl config" in err


def test_runpodctls_own_file_holds_the_key_too(operator: Operator) -> None:
    operator.has_key = False
    (operator.root / ".runpod").mkdir()
    (operator.root / ".runpod/config.toml").write_text(f'apikey = "{KEY}"\napiurl = "https://example.com"\n')
    assert operator("list")[0] == 0


def test_the_key_is_never_sent_in_the_clear_beyond_this_machine() -> None:
    with pytest.raises(Exception, match="is not https"):
        api.Api(KEY, "http://example.com")


def test_the_installed_command_explains_itself(tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "python"), "HOME": str(tmp_path)}
    words = [sys.executable, "-m", "hearmeman_pod"]
    done = subprocess.run([*words, "--help"], env=environ, capture_output=True, text=True)
    assert done.returncode == 0 and "Exit codes" in done.stdout
    done = subprocess.run([*words, "create"], env=environ, capture_output=True, text=True)
    assert done.returncode == 2 and "no API key" in done.stderr
