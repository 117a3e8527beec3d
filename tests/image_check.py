"""Boots a tier's whole image on CPU and proves that ComfyUI, its nodes and every environment work: `make image-check`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from hearmeman.models import catalogue
from hearmeman.users import COMFYUI, wrapped
from hearmeman.workflows import schema_command
from hearmeman_build.build import build_image
from hearmeman_build.host import ROOT, WORK
from image_graphs import SETTLE_SECONDS, check_graphs, lay_placeholders
from image_notebook import TOKEN, run_cell
from support.needed import unresolved
from support.pod import Pod, unpack
from support.ports import free_port
from support.toywheel import make_wheel

HERE = Path(__file__).resolve().parent
LATE = {
    "vibevoice": "comfyui",
    "mediapipe_face": "comfyui",
    "turbodiffusion": "comfyui",
    "perth_watermark": "comfyui",
    "traps": "comfyui",
    "genfocus": "comfyui",
    "mvinverse": "comfyui",
    "left_out": "comfyui",
    "storymem": "comfyui",
    "recammaster": "comfyui",
    "flashportrait": "comfyui",
    "flashportrait_wrapper": "comfyui",
    "xtts": "xtts",
    "chatterbox": "chatterbox",
    "small_voice": "voice",
    "voice_xtts": "xtts",
    "voice_chatterbox": "chatterbox",
}
"""Script of tests/late -> the environment that runs it."""
MODELS = "ComfyUI/models"
"""Where ComfyUI's models lie on the volume."""


class Report:
    """What was checked, as it is checked."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.begun = time.monotonic()

    def say(self, name: str, problem: str, detail: str = "") -> None:
        """One check's outcome."""
        mark = "FAILED" if problem else "ok"
        print(f"{time.monotonic() - self.begun:7.1f} s  {mark:6}  {name}  {detail}", flush=True)
        if problem:
            print("    " + problem.replace("\n", "\n    "), flush=True)
            self.failures.append(name)


def fetch(url: str, body: Any = None) -> Any:
    """GET, or POST of JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.loads(reply.read())


def fetch_text(url: str) -> str:
    """GET of plain text."""
    with urllib.request.urlopen(url, timeout=60) as reply:
        text: str = reply.read().decode()
        return text.strip()


def check_classes(url: str, report: Report, write: bool) -> None:
    """Every class of tests/comfyui/classes.txt is there; `write` writes that file and the workflows' schema anew."""
    told = fetch(f"{url}/object_info")
    there = set(told)
    path = HERE / "comfyui/classes.txt"
    if write:
        head = "# Node classes of the pinned ComfyUI and the custom nodes of nix/tiers.nix; make image-check WRITE=1.\n"
        path.write_text(head + "".join(f"{name}\n" for name in sorted(there)))
        asked = argparse.Namespace(dir=ROOT / "workflows", url=url, out=None, check=False, json=False)
        schema_command.run(asked, {})
    wanted = {line for line in path.read_text().splitlines() if line and not line.startswith("#")}
    missing = sorted(wanted - there)
    report.say("classes", f"missing: {', '.join(missing)}" if missing else "", f"{len(there)}, {len(wanted)} wanted")
    configs = told["CheckpointLoader"]["input"]["required"]["config_name"][0]
    report.say("checkpoint configurations", "" if configs else "CheckpointLoader offers none", f"{len(configs)}")


def check_prompt(url: str, volume: Path, name: str, case: Any, report: Report) -> None:
    """One prompt runs, and its outputs are files on the volume."""
    begun = time.monotonic()
    answer = fetch(f"{url}/prompt", {"prompt": case["prompt"], "client_id": "check"})
    identity = answer["prompt_id"]
    while identity not in (history := fetch(f"{url}/history/{identity}")):
        if time.monotonic() - begun > 120:
            report.say(f"prompt {name}", "no answer within 120 s")
            return
        time.sleep(0.2)
    outcome = history[identity]
    problem = "" if outcome["status"]["status_str"] == "success" else json.dumps(outcome["status"], indent=1)
    for node, wanted in case["outputs"].items():
        for item in outcome["outputs"].get(node, {}).get(wanted["key"], []) or [{"filename": "nothing"}]:
            file = volume / "ComfyUI/output" / item.get("subfolder", "") / item["filename"]
            if file.suffix != wanted["suffix"] or not file.is_file() or file.stat().st_size == 0:
                problem = problem or f"{file.name} of node {node} is not in the output folder"
    report.say(f"prompt {name}", problem, f"{time.monotonic() - begun:.1f} s")


def check_workflows(url: str, volume: Path, report: Report) -> None:
    """Every workflow of ours, by empty files under the catalogue's names in place of weights."""
    laid = lay_placeholders(catalogue.read(Path(catalogue.__file__).with_name("catalogue.toml")), volume / MODELS)
    report.say("placeholders", "", f"{laid} files")
    time.sleep(SETTLE_SECONDS)
    asyncio.run(check_graphs(url, ROOT / "workflows", report.say))


def check_user(pod: Pod, report: Report) -> None:
    """ComfyUI runs as its own user, and a root shell's pip and python become that user."""
    keep = Path(f"/proc/{pod.init}/root/run/hearmeman/keep/comfyui.json")
    inside = ["nsenter", "-t", str(pod.init), "-m", "-p", "--"]
    pid = json.loads(keep.read_text())["pid"]
    status = subprocess.run([*inside, "cat", f"/proc/{pid}/status"], capture_output=True, text=True).stdout
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    seen = {name: fields.get(name, "").split() for name in ("Uid", "Gid", "Groups", "CapEff", "CapBnd", "NoNewPrivs")}
    right = set(seen["Uid"]) == {str(COMFYUI.uid)} and set(seen["Gid"]) == {str(COMFYUI.gid)} and not seen["Groups"]
    right = right and int(seen["CapBnd"][0], 16) == 0 and seen["NoNewPrivs"] == ["1"]
    report.say("comfyui's user", "" if right else json.dumps(seen))
    shell = ". /run/hearmeman/shell.env; python -c 'import os, torch; print(os.geteuid())'; pip --version"
    done = subprocess.run([*inside, "/bin/bash", "-c", shell], capture_output=True, text=True, timeout=300)
    there = done.stdout.splitlines()
    problem = "" if there[:1] == [str(COMFYUI.uid)] and "pip " in done.stdout else done.stdout + done.stderr
    report.say("pip and python of a root shell", problem)


def check_volume(pod: Pod, report: Report) -> None:
    """What nodes write into their own folders, and what pip installs for ComfyUI, lands on the volume."""
    inside = ["nsenter", "-t", str(pod.init), "-m", "--", *wrapped(["/bin/sh", "-c"], COMFYUI)]
    for folder in ("comfyui_controlnet_aux/ckpts", "ComfyUI-WanVideoWrapper/text_embed_cache"):
        done = subprocess.run(
            [*inside, f"echo written > /opt/comfyui-nodes/{folder}/probe"], capture_output=True, text=True
        )
        there = pod.volume / "ComfyUI/node_data" / folder / "probe"
        report.say(f"node folder {folder}", done.stderr if done.returncode or not there.is_file() else "")
    toy = make_wheel(pod.volume, "toy", {"toy.py": "VERSION = 1\n"})
    [python] = (pod.volume / ".hearmeman/comfyui/overlays").glob("*/bin/python")
    overlay = f"/workspace/{python.relative_to(pod.volume)}"
    script = f"""
    export PIP_CONSTRAINT={Path(overlay).parents[1]}/constraints.txt
    {overlay} -m pip install --no-index /workspace/{toy.name} && cd / && {overlay} -c 'import toy, torch'
    {overlay} -m pip install --no-index torch transformers opencv-python | grep -c 'already satisfied: \\(torch\\|transformers\\|opencv-python\\)'
    ! {overlay} -m pip install --no-index 'numpy<2'
    """
    done = subprocess.run([*inside, f"set -e{script}"], capture_output=True, text=True, timeout=120)
    landed = (python.parents[1] / "lib/python3.11/site-packages/toy.py").is_file()
    report.say("overlay", "" if done.returncode == 0 and landed else f"{done.stdout}\n{done.stderr}"[-1500:])


def check_notebook(pod: Pod, port: int, report: Report) -> None:
    """A notebook's `%pip` works as ComfyUI's user, installs into its overlay, and is bound by its constraints."""
    wheel = make_wheel(pod.volume, "jotted", {"jotted.py": "VERSION = 1\n"})
    cell = f"""import os
%pip install --no-index /workspace/{wheel.name}
import jotted
%pip install --no-index 'numpy<2'
print('user', os.geteuid(), jotted.__file__)"""
    try:
        status, said = asyncio.run(run_cell(port, cell))
    except (TimeoutError, OSError, TypeError) as error:
        status, said = type(error).__name__, str(error)
    right = status == "ok" and f"user {COMFYUI.uid} /workspace/.hearmeman/comfyui/overlays/" in said
    refused = "ResolutionImpossible" in said or "conflict" in said
    report.say("%pip in a notebook", "" if right and refused else f"{status}: {said[-3000:]}")


def readiness(pod: Pod, port: int) -> tuple[str, str]:
    """What the status page says of ComfyUI and its nodes: a problem, and the words for it."""
    url = f"http://127.0.0.1:{port}/readyz"
    with contextlib.suppress(TimeoutError):
        pod.wait_for(lambda: _code(url)[0] == 200, "readyz", 30)
    code, text = _code(url)
    return ("" if code == 200 else text, text[:80])


def _code(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def check_late(pod: Pod, script: str, environment: str, report: Report) -> None:
    """Run one script of tests/late in the image."""
    # A script's folder comes first on its path: its name must not be a package's.
    (pod.volume / f"late_{script}.py").write_text((HERE / f"late/{script}.py").read_text())
    shutil.copy(HERE / "late/late_graph.py", pod.volume)
    python = f"/opt/env/{environment}/bin/python"
    variables = {"HOME": "/tmp", "HF_HUB_OFFLINE": "1", "NUMBA_CACHE_DIR": "/tmp/numba", "CUDA_VISIBLE_DEVICES": ""}
    try:
        done = subprocess.run(
            pod.command(python, f"/workspace/late_{script}.py", variables=variables),
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return report.say(f"late {script}", f"not done after {error.timeout:g} s")
    last = (done.stdout.strip().splitlines() or [""])[-1]
    return report.say(f"late {script}", done.stderr[-1500:] if done.returncode else "", last)


def main() -> int:
    """Check one tier."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tier", default="consumer")
    parser.add_argument("--keep-log", type=Path, default=WORK / "image-check.log", help="where the pod's output goes")
    parser.add_argument(
        "--write-nodes", action="store_true", help="write tests/comfyui/classes.txt and workflows/node-schema.json anew"
    )
    arguments = parser.parse_args()
    report = Report()
    image = build_image(arguments.tier)
    report.say("image", "", f"{image.digest}, {image.size / 1e9:.2f} GB in {len(image.layers)} layers")
    root = unpack(image)
    report.say("unpack", "")
    missing = unresolved(root)
    report.say("needed libraries", "\n".join(missing))
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        volume, port, status, jupyter = Path(folder), free_port(), free_port(), free_port()
        pod = Pod(image, volume)
        try:
            pod.start(
                {
                    "COMFYUI_HOST": "127.0.0.1",
                    "COMFYUI_PORT": str(port),
                    "COMFYUI_ARGS": "--cpu",
                    "STATUS_PORT": str(status),
                    "JUPYTER_HOST": "127.0.0.1",
                    "JUPYTER_PORT": str(jupyter),
                    "JUPYTER_PASSWORD": TOKEN,
                    "DRY_RUN": "true",
                    "HF_HUB_OFFLINE": "1",
                }
            )
            url = f"http://127.0.0.1:{port}"
            pod.wait_for(lambda: answers(url), "ComfyUI", 400)
            stats = fetch(f"{url}/system_stats")["system"]
            seconds = time.monotonic() - pod.started
            report.say("comfyui answers", "", f"{seconds:.1f} s after start, version {stats.get('comfyui_version')}")
            failed = [line for line in pod.lines if "IMPORT FAILED" in line]
            report.say("nodes import", "\n".join(failed))
            check_classes(url, report, arguments.write_nodes)
            for name, case in json.loads((HERE / "comfyui/prompts.json").read_text()).items():
                check_prompt(url, volume, name, case, report)
            check_workflows(url, volume, report)
            report.say("ready", *readiness(pod, status))
            report.say("manager", "", str(fetch_text(f"{url}/v2/manager/version")))
            check_user(pod, report)
            check_volume(pod, report)
            check_notebook(pod, jupyter, report)
            code = pod.stop()
            report.say("stop", "" if code == 0 else f"exit code {code}")
        except (TimeoutError, OSError) as error:
            report.say("comfyui answers", str(error)[-3000:])
        finally:
            pod.kill()
            arguments.keep_log.write_text(pod.log())
        for script, environment in LATE.items():
            check_late(pod, script, environment, report)
    if report.failures:
        # A plain user's checkout lies elsewhere in the namespace that this runs in.
        log = os.path.relpath(arguments.keep_log)
        print(f"{len(report.failures)} checks failed: {', '.join(report.failures)}; the pod's output: {log}")
        return 1
    print(f"all checks passed: {image.digest}")
    return 0


def answers(url: str) -> bool:
    """Whether ComfyUI serves."""
    try:
        fetch(f"{url}/system_stats")
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
