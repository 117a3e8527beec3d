"""What boot advises, followed: the variable or the machine is changed as the sentence says, and the sentence is gone."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from hearmeman import settings
from hearmeman.boot import plan
from hearmeman.boot.facts import Listen, Machine, Place
from hearmeman.image import Image
from hearmeman.storage import Mount
from hearmeman.tune import flags, tuner
from hearmeman.tune.command import own_arguments
from hearmeman.tune.command import voices as voices_of
from hearmeman.tune.machine import Gpu, Memory
from support.planning import IMAGE, KEY, SYNC, machine

Change = dict[str, Any]
GPU = Gpu("NVIDIA GeForce RTX 4090", 24564)
VOICES = dataclasses.replace(
    IMAGE,
    jupyter_python="/opt/jupyter",
    worker_python="/opt/worker",
    services={"xtts": ("big", "xtts"), "chatterbox": ("big", "chatterbox")},
    services_without_gpu={"xtts": ("small", "xtts"), "chatterbox": ("small", "chatterbox")},
)
FLAGS = flags.load_flags()


def memory(*gpus: Gpu, **changes: Any) -> Memory:
    return dataclasses.replace(
        Memory(gpus, "" if gpus else "no driver", None, 64 * 1024**3, "570.86", (12, 8)), **changes
    )


def place(**changes: Any) -> tuple[Place]:
    return (dataclasses.replace(Place("VOLUME_DIR", "/workspace", 10**12, ""), **changes),)


def sound(**changes: Any) -> Machine:
    return machine(**{"memory": memory(GPU), **changes})


def said(environ: dict[str, str], here: Machine, image: Image) -> tuple[list[str], bool]:
    """All that boot would say, and whether it would start the pod."""
    own, problems, warnings = own_arguments(environ.get("COMFYUI_ARGS", ""), FLAGS)
    try:
        read, left, failed = settings.load_for_boot(environ)
        if problems:
            raise settings.SettingsError(problems)
        tuning = tuner.tune(
            *(here.memory, FLAGS, read.gpu_tier, read.gpu_memory_mode, own, voices_of(read, own)),
            cuda_floor=image.cuda_floor,
        )
        made = plan.make_plan(read, here, image, tuning, left, "/run/hearmeman", "python", failed)
    except (settings.SettingsError, plan.BootError) as error:
        return str(error).splitlines(), False
    return [*warnings, *made.warnings, *(made.failed or {}).values()], True


def literally(sentence: str, environ: dict[str, str]) -> dict[str, str]:
    """Do what the first imperative of the sentence that a machine can read says: set NAME=VALUE, unset NAME."""
    given = re.search(r"\bset ([A-Z][A-Z0-9_]*=\S+?)(?:[,;)]|\s|$)(?:and ([A-Z][A-Z0-9_]*=\S+))?", sentence)
    if given:
        return environ | dict(word.split("=", 1) for word in given.groups() if word)
    name = re.search(r"\bunset ([A-Z][A-Z0-9_]*)", sentence)
    assert name, sentence
    return {key: value for key, value in environ.items() if key != name[1]}


R2 = "https://0123456789abcdef0123456789abcdef.r2.cloudflarestorage.com"
TAKEN = (Listen("0.0.0.0", 8188, "taken"),)
SIDE = Listen("0.0.0.0", 8020, "taken", "XTTS_PORT", essential=False)

LITERAL: list[tuple[str, dict[str, str], Change]] = [
    ("set STORAGE_MODE=auto", {"STORAGE_MODE": "persistent"}, {"volume_is_mount": False}),
    ("set STORAGE_MODE=ephemeral", {}, {"volume_is_mount": False}),
    ("set ENABLE_R2_SYNC=true", {**SYNC, "ENABLE_R2_SYNC": "false", "SYNC_WORKSPACE": "true"}, {}),
    (
        "set IDLE_ACTION=terminate",
        {"RUNPOD_POD_ID": "p", "RUNPOD_API_KEY": "k" * 20, "MAX_MINUTES": "9", "RUNPOD_VOLUME_ID": "v"},
        {},
    ),
    ("set COQUI_TOS_AGREED=true", {"ENABLE_XTTS": "true"}, {}),
    ("set R2_BUCKET=films and R2_ENDPOINT=", {"R2_ENDPOINT": f"{R2}/films"}, {}),
    ("set R2_BUCKET=films and R2_ENDPOINT=", {"R2_ENDPOINT": R2.replace("//", "//films.")}, {}),
    ("unset ENABLE_XTTS or use another image", {"ENABLE_XTTS": "true", "COQUI_TOS_AGREED": "true"}, {}),
]
"""(words of the advice, variables, the machine): the sentence itself says which variable is to be what."""


@pytest.mark.parametrize(("words", "environ", "change"), LITERAL)
def test_a_variable_is_set_as_the_sentence_says(words: str, environ: dict[str, str], change: Change) -> None:
    image, here = IMAGE if "use another image" in words else VOICES, sound(**change)
    before, _ = said(environ, here, image)
    [sentence] = [text for text in before if words in text]
    after, starts = said(literally(sentence, environ), here, image)
    assert starts and not [text for text in after if words in text], after


UNSET = [
    ("unset it or use another image", {"JUPYTER_PASSWORD": "long-enough-1"}, "JUPYTER_PASSWORD"),
    ("or unset it", {"COMFYUI_COMMIT": "f" * 40}, "COMFYUI_COMMIT"),
    ("or unset it", {"SAGE_ATTENTION": "true"}, "SAGE_ATTENTION"),
    ("nothing to update; unset it", {"UPDATE_NODES_ON_START": "true"}, "UPDATE_NODES_ON_START"),
    ("it has no effect; remove it", {"ENABLE_HOLODECK": "true"}, "ENABLE_HOLODECK"),
    (
        "both are set to different values: unset one",
        {"HF_TOKEN": "a" * 20, "HUGGING_FACE_HUB_TOKEN": "b" * 20},
        "HF_TOKEN",
    ),
    ("or unset the variable", {"ACCESS_TOKEN": "{{RUNPOD_SECRET_my-tok}}"}, "ACCESS_TOKEN"),
    ("unset it to go by the GPU", {"GPU_TIER": "datacenter"}, "GPU_TIER"),
    ("leave it out", {"COMFYUI_ARGS": "--quick-test-for-ci"}, "COMFYUI_ARGS"),
    ("stop the pod yourself", {"MAX_MINUTES": "9"}, "MAX_MINUTES"),
]


@pytest.mark.parametrize(("words", "environ", "name"), UNSET)
def test_a_variable_is_unset(words: str, environ: dict[str, str], name: str) -> None:
    here = sound(memory=memory()) if name == "SAGE_ATTENTION" else sound()
    before, _ = said(environ, here, IMAGE)
    assert [text for text in before if words in text and (name in text or name == "COMFYUI_ARGS")], before
    after, starts = said({key: value for key, value in environ.items() if key != name}, here, IMAGE)
    assert starts and not [text for text in after if words in text], after


SET: list[tuple[str, dict[str, str], dict[str, str]]] = [
    ("raise STOP_SECONDS", {**SYNC, "STOP_SECONDS": "10", "SYNC_DRAIN_SECONDS": "60"}, {"STOP_SECONDS": "300"}),
    ("numbered 0 to 0: name one of them", {"ENABLE_CHATTERBOX": "true", "VOICE_GPU": "3"}, {"VOICE_GPU": "0"}),
    ("numbered 0 to 0: name one of them", {"COMFYUI_ARGS": "--cuda-device 3"}, {"COMFYUI_ARGS": "--cuda-device 0"}),
    ("correct it", {"PUBLIC_KEY": KEY[:40]}, {"PUBLIC_KEY": KEY}),
    ("put each on a line of its own", {"PUBLIC_KEY": f"{KEY} {KEY}"}, {"PUBLIC_KEY": f"{KEY}\n{KEY}"}),
    ("give the line of the .pub file", {"PUBLIC_KEY": "-----BEGIN OPENSSH PRIVATE KEY-----"}, {"PUBLIC_KEY": KEY}),
    ("copy the whole line of the .pub file", {"PUBLIC_KEY": KEY.replace("ed25519 ", "rsa ")}, {"PUBLIC_KEY": KEY}),
    ("give one of them another port", {"XTTS_PORT": "8188"}, {"XTTS_PORT": "8189"}),
    ("give it alone, without a word before it", {"HF_TOKEN": "Bearer hf_abcdefgh"}, {"HF_TOKEN": "hf_abcdefgh"}),
    ("copy it again", {"HF_TOKEN": "hf_abc\u00e4defgh"}, {"HF_TOKEN": "hf_abcdefgh"}),
    ("something else was pasted with it", {"HF_TOKEN": "hf_abc\ndefgh"}, {"HF_TOKEN": "hf_abcdefgh"}),
    (
        "give the account's own address",
        {"R2_ENDPOINT": "https://<account>.r2.cloudflarestorage.com"},
        {"R2_ENDPOINT": R2},
    ),
    (
        "put your own name in the place of <...>",
        {"HF_ENDPOINT": "https://<mirror>.example.org"},
        {"HF_ENDPOINT": "https://mine.example.org"},
    ),
    (
        "leave out the login, and everything from '?' or '#'",
        {"HF_ENDPOINT": "https://me:word@example.org/hub?a=b#c"},
        {"HF_ENDPOINT": "https://example.org/hub"},
    ),
    ("close the quote", {"COMFYUI_ARGS": '--preview-method "auto'}, {"COMFYUI_ARGS": '--preview-method "auto"'}),
    (
        "name the origin, as in https://example.org",
        {"COMFYUI_ARGS": "--enable-cors-header"},
        {"COMFYUI_ARGS": "--enable-cors-header https://example.org"},
    ),
    (
        "contains a line break: remove it from COMFYUI_ARGS",
        {"COMFYUI_ARGS": "--enable-cors-header 'https://example\n.org'"},
        {"COMFYUI_ARGS": "--enable-cors-header 'https://example.org'"},
    ),
    ("name a place outside the volume", {"PYTHONPATH": "/workspace/mine"}, {"PYTHONPATH": "/opt/mine"}),
    ("give the pod another name", {"RUNPOD_POD_ID": "comfyui"}, {"RUNPOD_POD_ID": "film"}),
]


@pytest.mark.parametrize(("words", "environ", "more"), SET)
def test_a_variable_is_set_to_another_value(words: str, environ: dict[str, str], more: dict[str, str]) -> None:
    before, _ = said(environ, sound(), VOICES)
    assert [text for text in before if words in text], before
    after, starts = said(environ | more, sound(), VOICES)
    assert starts and not [text for text in after if words in text], after


MACHINE: list[tuple[str, dict[str, str], Change, Change]] = [
    ("set COMFYUI_PORT to a free port", {}, {"listens": TAKEN}, {"listens": (Listen("0.0.0.0", 8189, ""),)}),
    ("set another address", {}, {"listens": (Listen("192.0.2.1", 8188, "not ours"),)}, {}),
    (
        "set another port",
        {"ENABLE_XTTS": "true", "COQUI_TOS_AGREED": "true"},
        {"listens": (*machine().listens, SIDE)},
        {},
    ),
    ("attach a volume there", {"STORAGE_MODE": "persistent"}, {"volume_is_mount": False}, {}),
    ("attach a volume, or", {}, {"volume_is_mount": False}, {}),
    ("mount a writable volume", {}, {"places": place(problem="/workspace is not writable")}, {}),
    ("use a larger disk, delete files", {}, {"places": place(free_bytes=1024**2)}, {}),
    ("delete files or make it larger", {}, {"volume_used": 0.99}, {"volume_used": 0.5}),
    ("run the container as root", {}, {"not_separate": "it does not run as root"}, {}),
    ("use a volume that stores file owners", {}, {"ownerless": "chown is refused"}, {}),
    ("choose a pod with a GPU", {}, {"memory": memory()}, {}),
    ("choose a pod with one, or unset it", {"SAGE_ATTENTION": "true"}, {"memory": memory()}, {}),
    ("choose a pod with one unless", {}, {"memory": memory(GPU, GPU)}, {}),
    ("for their own voices", {"ENABLE_CHATTERBOX": "true"}, {"memory": memory()}, {}),
    ("few models run; choose a larger GPU", {}, {"memory": memory(Gpu("old", 6144))}, {}),
    (
        "choose a larger GPU, or one voice",
        {"ENABLE_XTTS": "true", "ENABLE_CHATTERBOX": "true", "COQUI_TOS_AGREED": "true"},
        {"memory": memory(Gpu("small", 12288))},
        {},
    ),
    ("create one with CUDA 12.8 or newer", {}, {"memory": memory(GPU, cuda=(12, 4))}, {}),
    (
        "choose a pod with a disk of its own",
        {},
        {"memory": memory(GPU, models=Mount("/workspace", "nfs4"))},
        {},
    ),
]
"""(words, variables, the machine as it is, what is different once the advice is followed; nothing: a sound machine)."""


@pytest.mark.parametrize(("words", "environ", "change", "then"), MACHINE)
def test_the_machine_is_changed(words: str, environ: dict[str, str], change: Change, then: Change) -> None:
    before, _ = said(environ, sound(**change), VOICES)
    assert [text for text in before if words in text], before
    after, starts = said(environ, sound(**then), VOICES)
    assert starts and not [text for text in after if words in text], after


@pytest.mark.parametrize("words", ["use another image", "build an image with that commit"])
def test_another_image_is_used(words: str) -> None:
    environ = {"ENABLE_WORKER": "true", "ENABLE_CHATTERBOX": "true", "JUPYTER_PASSWORD": "long-enough-1"}
    environ["COMFYUI_COMMIT"] = "f" * 40
    before, _ = said(environ, sound(), IMAGE)
    assert [text for text in before if words in text], before
    after, starts = said(environ, sound(), dataclasses.replace(VOICES, comfyui_rev="f" * 40))
    assert starts and not [text for text in after if words in text], after


@pytest.mark.parametrize("flag", [flag for flag, why in flags._OURS.items() if "use " in why])
def test_the_variable_that_is_to_be_used_has_the_flags_effect(flag: str) -> None:
    """What is named in place of a flag of ComfyUI reaches ComfyUI's command line."""
    values = {"COMFYUI_HOST": "127.0.0.9", "COMFYUI_PORT": "9123"}
    [sentence] = [text for text in said({"COMFYUI_ARGS": f"{flag} x"}, sound(), IMAGE)[0] if flag in text]
    name = sentence.rpartition("use ")[2].split()[0]
    value = values.get(name, "/elsewhere")
    read = settings.load({name: value})
    tuning = tuner.tune(memory(GPU), FLAGS)
    made = plan.make_plan(read, sound(), IMAGE, tuning, {name: value}, "/run/hearmeman", "python")
    words = made.processes[0].argv
    assert any(value in word for word in words), words


def test_a_variable_is_renamed_as_the_warning_says() -> None:
    environ = {"WAIT_FOR_MODEL": "true"}
    [found] = [
        re.search(r"^(\w+) is not .*: rename it if you meant (\w+)", text) for text in said(environ, sound(), IMAGE)[0]
    ]
    assert found is not None
    renamed = {found[2]: environ[found[1]]}
    after, starts = said(renamed, sound(), IMAGE)
    assert starts and after == []
    assert settings.load(renamed).wait_for_models
