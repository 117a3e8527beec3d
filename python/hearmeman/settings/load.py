"""Reads the settings from an environment and finds all that is wrong in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from hearmeman.errors import UsageError
from hearmeman.redact import redact
from hearmeman.settings.declare import UNSUBSTITUTED, Problem, near_misses, renamed
from hearmeman.settings.ports import equal_ports
from hearmeman.settings.settings import ALIASES, NAMES, SECRETS, Settings
from hearmeman.settings.values import TRUE, takes


class SettingsError(UsageError):
    """One or more variables are wrong; the message names all of them."""

    def __init__(self, problems: Sequence[Problem], started: str = "nothing was started") -> None:
        self.problems = tuple(problems)
        lines = [f"  {problem.text}" for problem in self.problems]
        super().__init__("\n".join([f"settings are wrong, {started}:", *lines]))


def canonical(environ: Mapping[str, str]) -> dict[str, str]:
    """Give `environ` without empty values, our variables cleaned and old spellings under their new names."""
    return renamed(environ, ALIASES, NAMES)[0]


def load(environ: Mapping[str, str], whole: bool = False) -> Settings:
    """Read the settings from `environ`; empty values count as unset.

    `whole` asks for what belongs together: a single process of the pod is not given the others' secrets.

    Raises:
        SettingsError: names every wrong variable, its value unless secret, and what it takes.
    """
    settings, problems = parse(environ, whole)
    if settings is None or problems:
        raise SettingsError(problems)
    return settings


def parse(environ: Mapping[str, str], whole: bool = False) -> tuple[Settings | None, list[Problem]]:
    """Read the settings and find all that is wrong; None where they cannot be made. `whole` as in `load`."""
    found, spelt, problems = renamed(environ, ALIASES, NAMES)
    problems += near_misses(environ, {**NAMES, **ALIASES})[0]
    problems += _missing(found) if whole else []
    settings = None
    try:
        settings = Settings.model_validate({NAMES[name]: value for name, value in found.items() if name in NAMES})
    except ValidationError as error:
        for item in error.errors(include_url=False, include_input=False):
            problems.append(_problem(item, found, spelt))
    if settings is not None:
        problems += [Problem(text.partition("=")[0], text) for text in equal_ports(settings)]
    return settings, problems


def _problem(item: Any, found: Mapping[str, str], spelt: Mapping[str, str]) -> Problem:
    """Make a sentence of ours; pydantic's own are about types, which nobody who sets a variable knows."""
    name = str(item["loc"][0]).upper()
    ours = item["type"] == "value_error"
    message = str(item["ctx"]["error"]) if ours else f"must be {takes(Settings.model_fields[NAMES[name]])}"
    value = found.get(name, "")
    short = value if len(value) <= 200 else f"{value[:200]}…"
    shown = "" if name in SECRETS else f"={redact(short)!r}"
    # Without this secret its own part fails; a gate without its token would stand open.
    spares = name in _PARTS and (name in SECRETS or UNSUBSTITUTED.search(value) is not None)
    too_short = message.startswith("must be at least")
    return Problem(
        name,
        f"{spelt.get(name, name)}{shown}: {message}",
        spares and not too_short,
        "" if name in SECRETS else redact(short),
        takes(Settings.model_fields[NAMES[name]]),
    )


def _missing(found: Mapping[str, str]) -> list[Problem]:
    if found.get("ENABLE_R2_SYNC", "").casefold() not in TRUE:
        return []
    names = ("R2_ENDPOINT", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY")
    return [
        Problem(name, f"{name} is required when ENABLE_R2_SYNC=true", spares_pod=True)
        for name in names
        if name not in found
    ]


_PARTS = {
    "R2_ENDPOINT": "sync",
    "R2_ACCESS_KEY_ID": "sync",
    "R2_SECRET_ACCESS_KEY": "sync",
    "JUPYTER_PASSWORD": "jupyter",
    "PUBLIC_KEY": "sshd",
    "SSH_PUBLIC_KEY": "sshd",
    "HF_TOKEN": "gated models",
    "CIVITAI_API_KEY": "gated models",
}
"""Variables whose absence fails only one part of the pod."""


def load_for_boot(environ: Mapping[str, str]) -> tuple[Settings, dict[str, str], dict[str, str]]:
    """Read the settings for a whole pod: (settings, the environment they are from, part -> why it will not work).

    A secret that was not substituted, is missing or cannot be one fails the part that needs it and not the pod: a pod without its
    sync can still be reached and repaired. Whatever else is wrong is an error, and so is a gate without its token.

    Raises:
        SettingsError: as `load`.
    """
    left = canonical(environ)
    failed: dict[str, str] = {}
    while True:
        settings, problems = parse(environ if not failed else left, whole=True)
        if settings is not None and not problems:
            return settings, left, failed
        if not all(problem.spares_pod for problem in problems):
            raise SettingsError(problems)
        for problem in problems:
            part = _PARTS[problem.name]
            failed[part] = "; ".join(filter(None, (failed.get(part), problem.text)))
            left.pop(problem.name, None)
            if part == "sync":
                left["ENABLE_R2_SYNC"] = "false"
