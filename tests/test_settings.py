"""Settings: every problem in one message, a suggestion for a slip, no secret shown."""

import pytest

from hearmeman.settings import SECRETS, SettingsError, load


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
