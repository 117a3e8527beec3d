"""The boot plan: what it holds, what it refuses, and what holds whatever is asked for."""

from __future__ import annotations

import configparser
import dataclasses
import shlex
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from supervisor.options import UnhosedConfigParser

from hearmeman import settings
from hearmeman.boot import environments, plan, supervisord_conf
from hearmeman.boot.facts import Listen, Place, bind_problem, process_started
from hearmeman.boot.keep import next_pause
from hearmeman.boot.process import Process
from hearmeman.boot.shell import shell_file
from hearmeman.boot.supervisord_conf import configuration
from hearmeman.image import Image
from hearmeman.tune.machine import Gpu, Memory
from hearmeman.users import COMFYUI, IDLE
from support.planning import IMAGE, KEY, SECRET, SYNC, TUNING, machine, planned


def test_two_workers_on_one_volume_write_into_no_folder_of_each_other() -> None:
    def places(pod: str) -> tuple[set[str], set[str]]:
        made = planned({"ENABLE_WORKER": "true", "RUNPOD_POD_ID": pod})
        argv = next(process.argv for process in made.processes if process.name == "comfyui")
        flags = ("--output-directory", "--input-directory", "--temp-directory")
        found = {argv[argv.index(flag) + 1] for flag in flags}
        assert found <= {folder.path for folder in made.folders}
        return {path for path in found if path.startswith("/workspace")}, found

    (first, all_of_first), (second, _) = places("a"), places("b")
    assert first == {"/workspace/ComfyUI/output/a"} and second == {"/workspace/ComfyUI/output/b"}
    # The container's own disk, which no other worker sees and which ends with the worker.
    assert all_of_first - first == {"/tmp/hearmeman-worker", "/tmp/hearmeman-worker/input"}
    pod = next(process.argv for process in planned({}).processes if process.name == "comfyui")
    assert not {"--output-directory", "--input-directory", "--temp-directory"} & {*pod}


def test_the_plan_is_pure() -> None:
    assert planned(SECRET) == planned(SECRET)
    assert not Path("/run/hearmeman/env").exists()


def test_comfyui_is_given_its_places() -> None:
    argv = planned({"COMFYUI_OUTPUT_DIR": "/out", "RUNPOD_POD_ID": "p"}).processes[0].argv
    text = " ".join(argv)
    assert argv[:2] == ("/opt/python", "/opt/comfyui/main.py")
    for part in (
        "--listen 0.0.0.0 --port 8188",
        "--base-directory /workspace/ComfyUI --models-directory /workspace/ComfyUI/models",
        "--user-directory /workspace/ComfyUI/user",
        "--database-url sqlite:////workspace/.hearmeman/comfyui/p/comfyui.db",
        "--extra-model-paths-config /run/hearmeman/extra_model_paths.yaml",
        "--output-directory /out",
        "--disable-auto-launch --log-stdout --cpu",
    ):
        assert part in text
    assert "--output-directory" not in planned({}).processes[0].argv


def test_secrets_go_only_where_they_are_needed() -> None:
    made = planned(SECRET)
    given = {process.name: process.secrets for process in made.processes}
    assert given == {
        "comfyui": {},
        "owners": {},
        "models": {"HF_TOKEN": "HF_TOKEN"},
        "sync": {"R2_ACCESS_KEY_ID": "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY": "R2_SECRET_ACCESS_KEY"},
        "door": {},
    }
    assert "secret" not in str([process.env for process in made.processes])
    assert made.withheld == ("COPY_OF_IT", "RUNPOD_API_KEY")


def test_only_what_ends_the_pod_is_given_the_key_that_can() -> None:
    wanted = {**SECRET, "RUNPOD_POD_ID": "p1", "IDLE_STOP_MINUTES": "30", "JUPYTER_PASSWORD": "j" * 12}
    made = planned(wanted, image=dataclasses.replace(IMAGE, jupyter_python="/j"))
    assert [process.name for process in made.processes if "RUNPOD_API_KEY" in process.secrets] == ["idle"]
    idle = next(process for process in made.processes if process.name == "idle")
    assert idle.user is IDLE
    assert set(idle.secrets) == {"RUNPOD_API_KEY", "JUPYTER_PASSWORD"}
    assert "RUNPOD_API_KEY" in made.unset


def test_a_pod_that_cannot_end_itself_says_so() -> None:
    assert any("have no effect" in warning for warning in planned({"MAX_MINUTES": "60"}).warnings)
    wanted = {"RUNPOD_POD_ID": "p1", "RUNPOD_API_KEY": "rp-secret", "MAX_MINUTES": "60"}
    assert not any("MAX_MINUTES" in warning for warning in planned(wanted).warnings)
    found = planned({**wanted, "RUNPOD_VOLUME_ID": "v"}).warnings
    assert any("IDLE_ACTION=terminate" in warning for warning in found)


def test_a_cache_of_models_in_the_bucket_gives_the_fetch_its_keys() -> None:
    made = planned({**SECRET, "MODEL_CACHE": "s3://runpod/models"})
    models = next(process for process in made.processes if process.name == "models")
    assert set(models.secrets) == {"HF_TOKEN", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY"}


def test_harmless_names_are_not_withheld() -> None:
    harmless = {"TOKENIZERS_PARALLELISM": "false", "PUBLIC_KEY": "ssh-ed25519 A", "MONKEY": "x", "PATH": "/bin"}
    assert environments.withheld(harmless) == set()


def test_the_stop_is_shared_out() -> None:
    made = planned(SYNC)
    stages = {process.name: (process.stop_stage, process.stop_seconds) for process in made.processes}
    assert stages["comfyui"] == (1, 6)
    assert stages["sync"] == (2, 21)
    tight = planned({**SYNC, "STOP_SECONDS": "10"})
    assert sum(max(p.stop_seconds for p in tight.processes if p.stop_stage == stage) for stage in (1, 2, 3)) <= 10
    assert any("SYNC_DRAIN_SECONDS=20 does not fit" in warning for warning in tight.warnings)


def test_a_node_on_the_volume_replaces_the_image_s() -> None:
    here = machine(baked_nodes=("/opt/nodes/A", "/opt/nodes/B"), volume_nodes=("a",))
    assert planned({}, here).node_links == ("/opt/nodes/B",)


def test_comfyui_finds_its_own_checkpoint_configurations_though_models_are_on_the_volume() -> None:
    assert planned({}).model_configs == str(Path(IMAGE.comfyui_main).parent / "models/configs")


def test_everything_wrong_with_the_machine_is_told() -> None:
    here = machine(
        listens=(Listen("0.0.0.0", 8188, "taken"),),
        places=(
            Place("VOLUME_DIR", "/workspace", 1024**2, ""),
            Place("STATE_DIR", "/state", 10**9, "/state is not writable"),
        ),
    )
    with pytest.raises(plan.BootError) as caught:
        planned({}, here)
    text = str(caught.value)
    assert "COMFYUI_PORT=8188: another process listens" in text
    assert "/workspace has 1 MiB free, 64 MiB are needed" in text
    assert "/state cannot be written: /state is not writable" in text


def test_a_taken_port_is_seen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert bind_problem("127.0.0.1", server.getsockname()[1]) == "taken"
    assert bind_problem("192.0.2.1", 8188) not in ("", "taken")


def test_pauses_grow_and_start_again_after_a_steady_minute() -> None:
    pauses = [0.0]
    for _ in range(8):
        pauses.append(next_pause(pauses[-1], 0.1))
    assert pauses[1:] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert next_pause(60, 61) == 1
    assert next_pause(60, 61, once=True) == 120, "a fetch that ran for an hour and lacks a file is no steady process"
    assert next_pause(500, 1, once=True) == 600


def test_the_entrypoint_s_start_is_read_from_proc() -> None:
    stat = "7 (a b) c) S" + " 0" * 18 + " 500 0"
    assert process_started(6.0, stat, 100) == 5.0
    assert process_started(1000.0, stat, 100) == 1000.0
    assert process_started(3.0, "", 100) == 3.0


def test_supervisord_s_comments_and_percent_signs_survive() -> None:
    from supervisor.options import UnhosedConfigParser

    process = Process("p", ("run", "50%", "a ;b", "c #d", "it's ;e"), {}, {}, 1, 3)
    made = plan.BootPlan((), (), "", (process,), 30, (), ())
    text = supervisord_conf.configuration(made, Path("/r"), Path("/l"), "python", 1.0, "pw", False)
    parser = UnhosedConfigParser()
    parser.read_string(text)
    import shlex

    command = parser.saneget("program:p", "command")
    assert shlex.split(command)[-5:] == ["run", "50%", "a ;b", "c #d", "it's ;e"]


def test_with_a_token_comfyui_listens_inside_only() -> None:
    made = planned({"ACCESS_TOKEN": "t" * 12})
    table = {process.name: process for process in made.processes}
    assert " --listen 127.0.0.1 --port 18188 " in " ".join(table["comfyui"].argv)
    assert made.comfyui_url == "http://127.0.0.1:18188"
    assert table["door"].secrets == {"ACCESS_TOKEN": "ACCESS_TOKEN"}
    assert all("ACCESS_TOKEN" not in p.secrets for name, p in table.items() if name != "door")
    assert "gate" not in {process.name for process in planned({}).processes}


def test_jupyter_is_never_without_a_token() -> None:
    image = Image("smoke", "abc", "/p", "/m", "12.8", jupyter_python="/j")
    assert "jupyter" not in {process.name for process in planned({}, image=image).processes}
    made = planned({"JUPYTER_PASSWORD": "j" * 12, "RUNPOD_POD_ID": "p1"}, image=image)
    jupyter = next(process for process in made.processes if process.name == "jupyter")
    assert jupyter.secrets == {"JUPYTER_PASSWORD": "JUPYTER_TOKEN"}
    assert "j" * 12 not in " ".join(jupyter.argv)
    assert "--ServerApp.allow_origin=https://p1-8888.proxy.runpod.net" in jupyter.argv
    assert not any("*" in word for word in jupyter.argv)
    assert "JUPYTER_TOKEN" in made.unset
    assert "has no JupyterLab" in (planned({"JUPYTER_PASSWORD": "j" * 12}).failed or {})["jupyter"]


SERVICES = {name: (f"/{name}", "{host}:{port}", "{voices}", "{models}", "{queue}") for name in ("xtts", "chatterbox")}
SMALL = {name: ("/small", name, "{port}") for name in SERVICES}
VOICES = Image("consumer", "abc", "/p", "/m", "12.8", services=SERVICES, services_without_gpu=SMALL)
GPU = Memory((Gpu("L4", 24 * 1024),), "", None, 0)
TOS = {"ENABLE_XTTS": "true", "COQUI_TOS_AGREED": "yes"}


def test_voices_are_data() -> None:
    table = {p.name: p for p in planned({**TOS, "VOICE_QUEUE": "3"}, image=VOICES, memory=GPU).processes}
    assert table["xtts"].argv == (
        "/xtts",
        "127.0.0.1:8020",
        "/workspace/voices",
        "/workspace/ComfyUI/models",
        "3",
    )
    assert table["xtts"].user is COMFYUI
    assert table["xtts"].secrets == {}
    image = Image("consumer", "abc", "/p", "/m", "12.8", services={"xtts": SERVICES["xtts"]})
    gated = {**TOS, "ACCESS_TOKEN": "t" * 12, "ENABLE_CHATTERBOX": "true"}
    made = planned(gated, image=image, memory=GPU)
    assert {p.name: p.argv for p in made.processes}["xtts"][1] == "127.0.0.1:18020"
    assert "has no chatterbox" in (made.failed or {})["chatterbox"]
    assert [door.service for door in made.doors] == ["ComfyUI", "status page", "XTTS"]


def test_a_voice_api_is_given_what_its_engine_looks_for_and_no_packages_of_a_person() -> None:
    environ = {**TOS, "VOICE_GPU": "0", "VOICE_IDLE_UNLOAD_SECONDS": "5", "PYTHONPATH": "/mine", "PYTHONHOME": "/mine"}
    environ["VOICE_ORIGINS"] = "https://Chat.example.com/ http://10.0.0.1:81"
    env = next(p.env for p in planned(environ, image=VOICES, memory=GPU).processes if p.name == "xtts")
    wanted = {
        "PYTHONPATH": "/opt/hearmeman/voice",
        "PYTHONSAFEPATH": "1",
        "HF_HUB_OFFLINE": "1",
        "ORT_DISABLE_TELEMETRY": "1",
        "CHATTERBOX_MODEL": "multilingual",
        "VOICE_IDLE_UNLOAD_SECONDS": "5",
        "VOICE_ORIGINS": "https://chat.example.com,http://10.0.0.1:81",
        "CUDA_VISIBLE_DEVICES": "0",
        "COQUI_TOS_AGREED": "1",
    }
    assert wanted.items() <= env.items()
    assert "PYTHONHOME" not in env
    others = [p for p in planned(environ, image=VOICES, memory=GPU).processes if p.name not in ("xtts", "chatterbox")]
    assert not any("/opt/hearmeman/voice" in p.env.get("PYTHONPATH", "") for p in others)


def test_without_its_terms_accepted_xtts_does_not_start_and_the_pod_does() -> None:
    both = {"ENABLE_XTTS": "true", "ENABLE_CHATTERBOX": "true"}
    made = planned(both, image=VOICES, memory=GPU)
    names = {process.name for process in made.processes}
    assert "xtts" not in names
    assert {"chatterbox", "comfyui"} <= names
    why = (made.failed or {})["xtts"]
    assert "neither the model nor the speech it makes" in why
    assert "COQUI_TOS_AGREED=true" in why
    assert not any("COQUI_TOS_AGREED" in warning for warning in made.warnings), "asked once"
    assert "XTTS" not in {door.service for door in made.doors}


def test_without_a_gpu_the_small_engine_speaks_and_asks_for_no_terms() -> None:
    made = planned({"ENABLE_XTTS": "true"}, image=VOICES)
    assert {p.name: p.argv for p in made.processes}["xtts"] == ("/small", "xtts", "8020")
    assert not made.failed
    assert [warning for warning in made.warnings if "XTTS answer with hibari" in warning]
    assert not [w for w in planned({"ENABLE_XTTS": "true"}, image=VOICES, memory=GPU).warnings if "hibari" in w]


def test_voices_on_a_gpu_that_is_not_there_do_not_start() -> None:
    made = planned({**TOS, "VOICE_GPU": "1"}, image=VOICES, memory=GPU)
    assert (made.failed or {})["xtts"] == ("VOICE_GPU=1, but this pod's GPUs are numbered 0 to 0: name one of them")
    two = Memory(GPU.gpus * 2, "", None, 0)
    env = next(
        p.env for p in planned({**TOS, "VOICE_GPU": "1"}, image=VOICES, memory=two).processes if p.name == "xtts"
    )
    assert env["CUDA_VISIBLE_DEVICES"] == "1"


def test_a_taken_port_of_a_side_door_stops_only_that() -> None:
    listens = (Listen("0.0.0.0", 8188, ""), Listen("0.0.0.0", 22, "taken", "SSH_PORT", False))
    made = planned({"PUBLIC_KEY": KEY}, listens=listens)
    assert "sshd" not in {process.name for process in made.processes}
    assert (made.failed or {})["sshd"] == "SSH_PORT=22: another process listens there: set another port"


def test_persistent_storage_needs_a_volume() -> None:
    with pytest.raises(plan.BootError, match="STORAGE_MODE=persistent, but nothing is mounted at /workspace"):
        planned({"STORAGE_MODE": "persistent"}, volume_is_mount=False)
    assert not any("no volume" in w for w in planned({"STORAGE_MODE": "ephemeral"}, volume_is_mount=False).warnings)


def test_a_gpu_that_cannot_run_the_image_is_told_before_anything_starts() -> None:
    tuning = dataclasses.replace(TUNING, problems=("this host's NVIDIA driver runs CUDA up to 12.4",))
    with pytest.raises(plan.BootError, match="CUDA up to 12.4"):
        plan.make_plan(settings.load({}), machine(), IMAGE, tuning, {}, "/r", "python")


def test_nodes_are_updated_before_comfyui_starts() -> None:
    made = planned({"UPDATE_NODES_ON_START": "true"}, volume_repositories=("/workspace/ComfyUI/custom_nodes/A",))
    table = {process.name: process for process in made.processes}
    assert table["comfyui"].after == ("nodes",)
    assert table["nodes"].user is COMFYUI
    assert any("nothing to update" in warning for warning in planned({"UPDATE_NODES_ON_START": "true"}).warnings)


ANYTHING = st.fixed_dictionaries(
    {},
    optional={
        "ACCESS_TOKEN": st.just("planted-gate-token"),
        "JUPYTER_PASSWORD": st.just("planted-jupyter-token"),
        "HF_TOKEN": st.just("planted-hf"),
        "RUNPOD_API_KEY": st.just("planted-runpod"),
        "MY_OWN_SECRET": st.just("planted-unknown"),
        "HIDDEN_COPY": st.just("x planted-gate-token y"),
        "ENABLE_R2_SYNC": st.sampled_from(["true", "false"]),
        "R2_ENDPOINT": st.just("https://r2.example"),
        "R2_ACCESS_KEY_ID": st.just("planted-r2-id"),
        "R2_SECRET_ACCESS_KEY": st.just("planted-r2-key"),
        "ENABLE_XTTS": st.sampled_from(["true", "false"]),
        "ENABLE_CHATTERBOX": st.sampled_from(["true", "false"]),
        "UPDATE_NODES_ON_START": st.sampled_from(["true", "false"]),
        "WAIT_FOR_MODELS": st.sampled_from(["true", "false"]),
        "PUBLIC_KEY": st.sampled_from([KEY, "no key"]),
        "STOP_SECONDS": st.floats(1, 600).map(str),
        "SYNC_DRAIN_SECONDS": st.floats(0, 600).map(str),
        "COMFYUI_HOST": st.sampled_from(["0.0.0.0", "127.0.0.1", "0.0.0.0,::"]),
        "VOLUME_DIR": st.sampled_from(["/workspace", "/with space", "/per%cent ;semi #hash"]),
    },
)


@given(environ=ANYTHING, separate=st.booleans(), has_voices=st.booleans())
def test_whatever_is_asked_for_the_plan_holds_together(
    environ: dict[str, str], separate: bool, has_voices: bool
) -> None:
    if "ACCESS_TOKEN" not in environ:
        environ = {name: value for name, value in environ.items() if name != "HIDDEN_COPY"}
    given_settings, left, failed = settings.load_for_boot(environ)
    services = {"xtts": ("/x", "{port}"), "chatterbox": ("/c", "{port}")} if has_voices else {}
    image = Image("smoke", "abc", "/p", "/m", "12.8", jupyter_python="/j", services=services)
    here = machine(not_separate="" if separate else "so", volume_repositories=("/a",))
    made = plan.make_plan(given_settings, here, image, TUNING, left, "/r", "python", failed)
    names = [process.name for process in made.processes]
    assert len(names) == len(set(names))
    assert {"comfyui", "models", "door"} <= set(names)
    for process in made.processes:
        assert {*process.after, *process.needs} <= set(names) - {process.name}
        assert process.stop_seconds > 0
    # No secret in a command, a plain environment or a shell; each is given to one process at most.
    text = str([(p.argv, p.env) for p in made.processes]) + shell_file(made.shell or {}, made.unset)
    assert "planted" not in text
    owners = [name for process in made.processes for name in process.secrets]
    assert len(owners) == len(set(owners))
    assert set(owners) | set(made.withheld) >= {name for name, value in environ.items() if "planted" in value} - {
        "R2_ENDPOINT"
    }
    # The whole stop fits the budget, stage after stage.
    stages = {process.stop_stage for process in made.processes}
    whole = sum(max(p.stop_seconds for p in made.processes if p.stop_stage == stage) for stage in stages)
    assert whole <= made.stop_seconds
    # With a token, nothing but JupyterLab and SSH answers without the gate.
    if "ACCESS_TOKEN" in environ:
        assert {door.guard for door in made.doors} <= {"gate", "token", "keys"}
        assert "gate" in names
    parser = UnhosedConfigParser()
    parser.read_string(configuration(made, Path("/r"), Path("/l"), "python", 1.0, "pw", True))
    for process in made.processes:
        assert shlex.split(parser.saneget(f"program:{process.name}", "command"))[-1] == process.argv[-1]


def test_comfyui_manager_is_configured_where_the_image_has_it() -> None:
    assert planned({}).manager_config is None
    image = Image("consumer", "abc", "/p", "/m", "12.8", comfyui_arguments=("--enable-manager",))
    found = planned({}, image=image).manager_config
    assert found is not None
    file, content = found
    assert file == "/workspace/ComfyUI/user/__manager/config.ini"
    parser = configparser.ConfigParser()
    parser.read_string(content)
    assert (parser["default"]["network_mode"], parser["default"]["security_level"]) == ("personal_cloud", "normal")


def test_a_volume_that_keeps_no_owners_holds_nothing_that_root_trusts() -> None:
    image = Image("smoke", "abc", "/p", "/m", "12.8", jupyter_python="/j")
    environ = {"PUBLIC_KEY": KEY, "JUPYTER_PASSWORD": "j" * 12}
    made = planned(environ, machine(ownerless="Operation not permitted"), image)
    assert made.separate
    assert made.logs == "/run/hearmeman/kept/logs"
    table = {process.name: process for process in made.processes}
    assert "owners" not in table
    assert table["models"].first == ()
    assert "--keys-dir /run/hearmeman/kept/ssh" in " ".join(table["sshd"].argv)
    assert table["jupyter"].env["JUPYTERLAB_SETTINGS_DIR"] == "/run/hearmeman/kept/jupyter/settings"
    assert any("does not store file owners (Operation not permitted)" in warning for warning in made.warnings)


def test_what_names_code_on_the_volume_is_comfyui_s_alone() -> None:
    environ = {"PATH": "/workspace/bin:/usr/bin", "PYTHONPATH": "/workspace/code", "AWS_CONFIG_FILE": "/workspace/aws"}
    made = planned({**environ, **SYNC})
    for process in made.processes:
        is_theirs = process.user is COMFYUI
        assert ("PYTHONPATH" in process.env) == is_theirs, process.name
        assert process.env["PATH"].endswith("/workspace/bin:/usr/bin" if is_theirs else "/usr/bin")
        assert is_theirs or "/workspace/bin" not in process.env["PATH"]
        # Nor the folder that it is started in.
        if process.argv[0] == "python":
            assert process.argv[1] == "-P", process.name
        assert is_theirs or process.directory == "/"
    assert any("AWS_CONFIG_FILE, PYTHONPATH" in warning for warning in made.warnings)
    whole = planned(environ, machine(not_separate="so"))
    assert all("PYTHONPATH" in process.env for process in whole.processes if process.name != "gate")
