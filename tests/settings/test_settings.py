"""Settings: every problem in one message, a suggestion for a slip, no secret shown."""

import json
import re
from pathlib import Path

import pytest

from hearmeman import cli
from hearmeman.errors import UsageError
from hearmeman.redact import looks_secret
from hearmeman.settings import (
    ALIASES,
    GROUPS,
    NAMES,
    RUNPOD_SECRETS,
    SECRETS,
    Settings,
    SettingsError,
    load,
    load_for_boot,
)
from hearmeman.settings import command as env_command
from hearmeman.settings.declare import strangers
from support.repository import ROOT


def message(environ: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        load(environ, whole=True)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_all_problems_are_told_together() -> None:
    text = message({"COMFYUI_PORT": "80000", "GPU_TIER": "huge", "WAIT_FOR_MODELS": "perhaps", "VOLUME_DIR": "here"})
    for name in ("COMFYUI_PORT='80000'", "GPU_TIER='huge'", "WAIT_FOR_MODELS='perhaps'", "VOLUME_DIR='here'"):
        assert name in text


def test_a_misspelt_name_gets_a_suggestion() -> None:
    assert "ENABLE_R2_SINC is not a variable: did you mean ENABLE_R2_SYNC?" in message({"ENABLE_R2_SINC": "true"})


def test_a_secret_that_was_not_substituted_is_an_error() -> None:
    text = message({"HF_TOKEN": "{{ RUNPOD_SECRET_hf }}"})
    assert "HF_TOKEN" in text
    assert "not substituted" in text


def test_a_secret_never_appears_in_an_error() -> None:
    text = message({"R2_SECRET_ACCESS_KEY": "{{ RUNPOD_SECRET_x }} hunter2", "COMFYUI_PORT": "x"})
    assert "R2_SECRET_ACCESS_KEY" in text
    assert "hunter2" not in text


def test_a_secret_is_masked_when_printed() -> None:
    assert "hunter2" not in repr(load({"HF_TOKEN": "hunter2"}))
    assert {"HF_TOKEN", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY"} <= SECRETS


def test_sync_needs_its_endpoint_and_keys_all_named_with_the_rest() -> None:
    text = message({"ENABLE_R2_SYNC": "true", "R2_ACCESS_KEY_ID": "key", "COMFYUI_PORT": "x"})
    for part in ("R2_ENDPOINT is required", "R2_SECRET_ACCESS_KEY is required", "COMFYUI_PORT='x'"):
        assert part in text
    assert "R2_ACCESS_KEY_ID is" not in text


def test_a_process_without_the_sync_s_secrets_has_settings() -> None:
    assert load({"ENABLE_R2_SYNC": "true"}).enable_r2_sync


def test_empty_means_unset() -> None:
    assert load({"COMFYUI_PORT": "", "HF_TOKEN": ""}).comfyui_port == 8188


def test_paths_follow_the_volume_and_the_pod() -> None:
    settings = load({"VOLUME_DIR": "/v", "RUNPOD_POD_ID": "p1"})
    assert settings.models_path == "/v/ComfyUI/models"
    assert settings.output_path == "/v/ComfyUI/output"
    assert settings.state_path == "/v/.hearmeman/p1"


def test_an_old_spelling_works_and_a_contradiction_is_an_error() -> None:
    assert load({"CLI_ARGS": "--fast"}).comfyui_args == "--fast"
    assert load({"CLI_ARGS": "--fast", "COMFYUI_ARGS": "--fast"}).comfyui_args == "--fast"
    text = message({"JUPYTER_TOKEN": "a" * 12, "JUPYTER_PASSWORD": "b" * 12})
    assert "JUPYTER_TOKEN is another spelling of JUPYTER_PASSWORD" in text
    assert "aaa" not in text


@pytest.mark.parametrize(
    ("slip", "meant"),
    [("MODEL_DIR", "MODELS_DIR"), ("ACESS_TOKEN", "ACCESS_TOKEN"), ("comfyui_port", "COMFYUI_PORT")],
)
def test_slips_are_found_in_any_family(slip: str, meant: str) -> None:
    assert f"{slip} is not a variable: did you mean {meant}?" in message({slip: "x"})


@pytest.mark.parametrize(
    "name", ["RUNPOD_TCP_PORT_8188", "RUNPOD_POD_HOSTNAME", "NVIDIA_VISIBLE_DEVICES", "HF_HUB_CACHE", "PATH", "HOME"]
)
def test_other_software_s_variables_are_left_alone(name: str) -> None:
    load({name: "x"})


def test_toggles_that_nothing_knows_are_named() -> None:
    found = strangers({"ENABLE_TELEPORT": "true", "ENABLE_R2_SINC": "true", "FOO": "1"}, NAMES)
    assert found == ["ENABLE_TELEPORT is set, but unknown here: it has no effect; remove it"]


@pytest.mark.parametrize(("name", "meant"), [("MODEL", "MODELS"), ("TTS_PORT", "XTTS_PORT")])
def test_a_name_that_may_be_another_program_s_is_only_a_warning(name: str, meant: str) -> None:
    load({name: "x"}, whole=True)
    assert strangers({name: "x"}, NAMES) == [
        f"{name} is not a variable of this pod and has no effect: rename it if you meant {meant}"
    ]


def test_a_short_token_is_refused_without_showing_it() -> None:
    text = message({"ACCESS_TOKEN": "hunter2", "JUPYTER_PASSWORD": "hunter2"})
    assert text.count("at least 12 printable characters") == 2
    assert "hunter2" not in text


def test_two_services_on_one_port() -> None:
    assert "STATUS_PORT=8188 is also COMFYUI_PORT" in message({"STATUS_PORT": "8188"})


def test_at_boot_a_secret_that_is_missing_fails_its_part_only() -> None:
    environ = {
        "ENABLE_R2_SYNC": "true",
        "R2_ENDPOINT": "https://r2.example",
        "R2_ACCESS_KEY_ID": "{{ RUNPOD_SECRET_r2_access_key }}",
        "HF_TOKEN": "{{RUNPOD_SECRET_hf}}",
        "JUPYTER_PASSWORD": "{{ RUNPOD_SECRET_j }}",
    }
    settings, left, failed = load_for_boot(environ)
    assert set(failed) == {"sync", "gated models", "jupyter"}
    assert "R2_ACCESS_KEY_ID" in failed["sync"]
    assert not settings.enable_r2_sync
    assert settings.jupyter_password is None
    assert "HF_TOKEN" not in left
    _, _, failed = load_for_boot({"ENABLE_R2_SYNC": "true", "R2_ENDPOINT": "https://r2.example"})
    assert "R2_ACCESS_KEY_ID is required" in failed["sync"]


@pytest.mark.parametrize(
    "environ",
    [
        {"ACCESS_TOKEN": "{{ RUNPOD_SECRET_t }}"},
        {"JUPYTER_PASSWORD": "short"},
        {"HF_TOKEN": "{{ RUNPOD_SECRET_hf }}", "COMFYUI_PORT": "x"},
        {"R2_ENDPOINT": "ftp://x", "ENABLE_R2_SYNC": "true"},
    ],
)
def test_at_boot_all_else_is_an_error(environ: dict[str, str]) -> None:
    with pytest.raises(SettingsError):
        load_for_boot(environ)


def test_the_pod_s_own_keys_replace_the_account_s() -> None:
    one = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGvMTvBrQcAwkNzBdSqrVfLoHsTBeSDvVDjLfmZQmrJK one"
    other = one.replace("one", "other")
    assert load({"PUBLIC_KEY": f"{one}\n# no\n\n{other}\r\n"}).authorized_keys == (one, other)
    assert load({"PUBLIC_KEY": one, "SSH_PUBLIC_KEY": other}).authorized_keys == (other,)


def test_every_variable_is_in_one_group() -> None:
    assert sorted(name for _, names in GROUPS for name in names) == sorted(n.upper() for n in Settings.model_fields)


def test_the_template_holds_what_differs_and_no_secret() -> None:
    environ = {
        "ACCESS_TOKEN": "a-secret-token-of-ours",
        "COMFYUI_PORT": "8188",
        "ENABLE_XTTS": "true",
        "ENABLE_CONTROLNET": "false",
        "RUNPOD_POD_ID": "p1",
        "GPU_TIER": "prosumer",
    }
    made = env_command.template(environ, {"GPU_TIER": "prosumer"})
    assert made["env"] == {
        "ACCESS_TOKEN": "{{ RUNPOD_SECRET_access_token }}",
        "ENABLE_XTTS": "true",
        "ENABLE_CONTROLNET": "false",
    }
    assert made["ports"] == ["8188/http", "19123/http", "8020/http", "22/tcp"]


def test_a_template_of_an_image_holds_what_its_tier_recommends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ("tier", "comfyui_rev", "comfyui_python", "comfyui_main", "cuda_floor")
    facts = {
        **dict.fromkeys(texts, "x"),
        "env": {"QWEN_EDIT_MODEL": "Q8_0"},
        "recommended": {"WAN_720P": "true", "ENABLE_VACE": "true"},
    }
    (tmp_path / "image.json").write_text(json.dumps(facts))
    words = ["env", "--template", "--image-file", str(tmp_path / "image.json"), "--run-dir", str(tmp_path)]
    assert cli.main(words, {"ENABLE_VACE": "false"}) == 0
    assert json.loads(capsys.readouterr().out)["env"] == {"WAN_720P": "true"}, "the environment's word wins"


def test_a_template_names_secrets_as_the_documentation_does() -> None:
    assert RUNPOD_SECRETS == {
        "R2_ACCESS_KEY_ID": "r2_access_key",
        "R2_SECRET_ACCESS_KEY": "r2_secret_key",
        "CIVITAI_API_KEY": "civitai_key",
        "HF_TOKEN": "hf_token",
        "ACCESS_TOKEN": "access_token",
        "JUPYTER_PASSWORD": "jupyter_password",
        "NOTIFY_URL": "notify_url",
    }
    environ = {name: f"a-value-of-{secret}" for name, secret in RUNPOD_SECRETS.items()}
    environ["NOTIFY_URL"] = "https://hooks.example.com/secret"
    made = env_command.template(environ, {})
    assert made["env"] == {name: f"{{{{ RUNPOD_SECRET_{secret} }}}}" for name, secret in RUNPOD_SECRETS.items()}
    written = (ROOT / "docs" / "environment.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |  | secret `{secret}` |" in written for name, secret in RUNPOD_SECRETS.items())
    # What RunPod gives by itself needs no secret of a person's.
    assert set(RUNPOD_SECRETS) == SECRETS - {"RUNPOD_API_KEY"}


def test_every_secret_and_its_old_spellings_look_secret() -> None:
    spelt = {*SECRETS, *(old for old, new in ALIASES.items() if new in SECRETS)}
    assert all(looks_secret(name) for name in spelt)


def test_a_secret_that_cannot_be_one_fails_its_part_only() -> None:
    _, left, failed = load_for_boot({"HF_TOKEN": "hf_a\nb", "CIVITAI_API_KEY": "a b"})
    assert set(failed) == {"gated models"}
    assert "line break" in failed["gated models"]
    assert not {"HF_TOKEN", "CIVITAI_API_KEY"} & set(left)


def test_what_boot_hands_on_is_clean() -> None:
    _, left, _ = load_for_boot({"HF_TOKEN": " 'hf_abc'\r", "CIVITAI_TOKEN": '"c1v1"', "PATH": " /bin "})
    assert (left["HF_TOKEN"], left["CIVITAI_API_KEY"], left["PATH"]) == ("hf_abc", "c1v1", " /bin ")


def test_a_template_with_too_many_variables_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env_command, "MOST_VARIABLES", 1)
    with pytest.raises(UsageError, match="RunPod takes at most 1"):
        env_command.template({"VOLUME_DIR": "/v", "GPU_TIER": "consumer"}, {})


def test_every_variable_has_a_reader() -> None:
    """A variable that nothing reads is a promise that nobody keeps."""
    code = ""
    declared = {ROOT / "python/hearmeman/settings" / name for name in ("groups.py", "ports.py", "values.py")}
    for path in sorted((ROOT / "python").rglob("*.py")):
        if path not in declared:
            code += path.read_text(encoding="utf-8")
    catalogue = (ROOT / "python/hearmeman/models/catalogue.toml").read_text(encoding="utf-8")
    made = {f"{door}_{kind}" for door in ("xtts", "chatterbox") for kind in ("host", "port", "inner_port")}
    made |= {f"enable_{name}" for name in ("xtts", "chatterbox")}
    unread = [
        name.upper()
        for name in Settings.model_fields
        if not re.search(
            rf"\b(settings|self|tuple)\.{name}\b|settings, ?[f]?\"{name}\"|\"{name}\"|\"{name.upper()}\"", code
        )
        and not re.search(rf"^{name.upper()} = |[{{ ]{name.upper()} = ", catalogue, re.MULTILINE)
        and name not in made
    ]
    # Declared so that nobody is given it.
    assert set(unread) <= {"RUNPOD_API_KEY"}, (
        "nothing reads these: no code as settings.NAME, no `when` of the catalogue"
    )
