"""docs/from-the-template.md: what it names in its middle column exists, and no variable of the template is forgotten."""

from __future__ import annotations

import re
import tomllib

import pytest

from hearmeman.cli import COMMANDS, parser_for
from hearmeman.settings import ALIASES, Settings
from support.repository import ROOT

PAGE = ROOT / "docs/from-the-template.md"
CATALOGUE = ROOT / "python/hearmeman/models/catalogue.toml"
COMPOSE = (ROOT / "compose.yaml").read_text(encoding="utf-8")

TEMPLATE_VARIABLES = [
    "COMFYUI_PORT",
    "GPU_TIER",
    "GPU_MEMORY_MODE",
    "COMFYUI_ARGS",
    "ENABLE_GENFOCUS",
    "ENABLE_QWEN_EDIT",
    "QWEN_EDIT_MODEL",
    "ENABLE_MVINVERSE",
    "ENABLE_FLASHPORTRAIT",
    "ENABLE_STORYMEM",
    "ENABLE_INFCAM",
    "ENABLE_R2_SYNC",
    "R2_ENDPOINT",
    "R2_BUCKET",
    "STORAGE_MODE",
    "PUBLIC_KEY",
    "JUPYTER_PASSWORD",
    "UPDATE_NODES_ON_START",
    "MODELS_DIR",
    "DRY_RUN",
    "DOWNLOAD_TIMEOUT",
    "CIVITAI_API_KEY",
    "ENABLE_VIBEVOICE",
    "VIBEVOICE_MODEL",
    "WAN_720P",
    "WAN_480P",
    "ENABLE_I2V",
    "ENABLE_WAN22_DISTILL",
    "ENABLE_CONTROLNET",
    "ENABLE_ILLUSTRIOUS",
    "ENABLE_ZIMAGE",
    "ENABLE_STEADYDANCER",
    "ENABLE_SCAIL",
    "ENABLE_VACE",
    "ENABLE_FUN_INP",
    "COMFYUI_OUTPUT_DIR",
    "R2_ACCESS_KEY_ID",
    "R2_SECRET_ACCESS_KEY",
]
"""The variables of the template that keep their names."""

REPLACED = ("BASE_IMAGE", "COMFYUI_COMMIT", "BAKE_WAN_720P", "BAKE_WAN_480P", "BAKE_ILLUSTRIOUS", "WATCH_PATTERNS")
"""Those that are something else now."""


def rows() -> list[tuple[str, str, str]]:
    found = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("| ") and not line.startswith("| The template"):
            then, now, why = (cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|")))
            found.append((then, now, why))
    return found


def names_something(text: str) -> bool:
    """Whether `text`, one word or command of the middle column, exists in the repository or the image."""
    if re.fullmatch(r"[A-Z][A-Z0-9_]+", text):
        # Read by the host's command, which has no settings of the pod.
        return text.lower() in Settings.model_fields or text in ALIASES or text == "HEARMEMAN_REPOSITORY"
    if text.startswith("hearmeman "):
        words = text.split()[1:]
        return words[0] in COMMANDS and parser_for(words).parse_args(words) is not None
    if text.startswith("make "):
        return re.search(rf"^{text[5:]}:", (ROOT / "Makefile").read_text(), re.MULTILINE) is not None
    if text.startswith("nix run .#"):
        return f"\n    {text[10:]} = " in (ROOT / "nix/apps.nix").read_text()
    if text.startswith("/"):
        return text[1:] in (ROOT / "nix/default.nix").read_text() + (ROOT / "nix/comfyui.nix").read_text()
    catalogue = tomllib.loads(CATALOGUE.read_text(encoding="utf-8"))
    files = [file.get("to", "").rpartition("/")[2] for file in catalogue["file"]]
    return text in files or text in [item["id"] for item in catalogue["model"]] or (ROOT / text).exists()


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:40])
def test_what_a_row_points_to_exists(row: tuple[str, str, str]) -> None:
    words = re.findall(r"`([^`]+)`", row[1])
    assert words, f"{row[0]}: the middle column names nothing"
    assert [word for word in words if not names_something(word)] == []


def test_every_variable_of_the_template_has_a_row() -> None:
    then = " ".join(row[0] for row in rows())
    now = " ".join(row[1] for row in rows())
    assert [name for name in TEMPLATE_VARIABLES if f"`{name}" not in then or f"`{name}`" not in now + then] == []
    assert [name for name in REPLACED if f"`{name}`" not in then] == []


def test_the_example_for_compose_names_only_variables_that_exist() -> None:
    lines = [line for line in (ROOT / ".env.example").read_text().splitlines() if line and not line.startswith("#")]
    assert lines
    compose = set(re.findall(r"\$\{(\w+)", COMPOSE))
    names = [line.partition("=")[0] for line in lines]
    assert [name for name in names if name.lower() not in Settings.model_fields and name not in compose] == []


def test_compose_1_29_can_read_every_variable_of_compose_yaml() -> None:
    """Its defaults are plain text: a variable within another's default is taken for part of a name."""
    assert COMPOSE.count("${") == len(re.findall(r"\$\{\w+(?::-[\w./-]*)?\}", COMPOSE)) > 0
