"""Reads the settings from an environment and finds all that is wrong in it."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from hearmeman.errors import UsageError
from hearmeman.settings import groups
from hearmeman.settings.declare import UNSUBSTITUTED, Problem, near_misses, renamed
from hearmeman.settings.settings import ALIASES, SECRETS, Settings


class SettingsError(UsageError):
    """One or more variables are wrong; the message names all of them."""


def canonical(environ: Mapping[str, str]) -> dict[str, str]:
    """Give `environ` without empty values and with old spellings under their new names."""
    return renamed(environ, ALIASES)[0]


def load(environ: Mapping[str, str], whole: bool = False) -> Settings:
    """Read the settings from `environ`; empty values count as unset.

    `whole` asks for what belongs together: a single process of the pod is not given the others' secrets.

    Raises:
        SettingsError: names every wrong variable, its value unless secret, and what it takes.
    """
    settings, problems = parse(environ, whole)
    if settings is None or problems:
        raise SettingsError(told(problems))
    return settings


def told(problems: list[Problem]) -> str:
    """Render problems as one message."""
    return "settings are wrong, nothing was started:\n" + "\n".join(f"  {problem.text}" for problem in problems)


def parse(environ: Mapping[str, str], whole: bool = False) -> tuple[Settings | None, list[Problem]]:
    """Read the settings and find all that is wrong; None where they cannot be made. `whole` as in `load`."""
    names = {name.upper(): name for name in Settings.model_fields}
    found, spelt, problems = renamed(environ, ALIASES)
    problems += near_misses(environ, {**names, **ALIASES})
    problems += _missing(found) if whole else []
    settings = None
    try:
        settings = Settings.model_validate({names[name]: value for name, value in found.items() if name in names})
    except ValidationError as error:
        for item in error.errors(include_url=False, include_input=False):
            name = str(item["loc"][0]).upper() if item["loc"] else ""
            message = item["msg"].removeprefix("Value error, ")
            shown = "" if not name or name in SECRETS else f"={found.get(name, '')!r}"
            problems.append(Problem(name, f"{spelt.get(name, name)}{shown}: {message}" if name else message))
    if settings is not None:
        problems += [Problem(text.partition("=")[0], text) for text in groups.equal_ports(settings)]
    return settings, problems


_TRUE = frozenset({"1", "on", "t", "true", "y", "yes"})


def _missing(found: Mapping[str, str]) -> list[Problem]:
    if found.get("ENABLE_R2_SYNC", "").lower() not in _TRUE:
        return []
    names = ("R2_ENDPOINT", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY")
    return [Problem(name, f"{name} is required when ENABLE_R2_SYNC=true") for name in names if name not in found]


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

    A secret that was not substituted, or is missing, fails the part that needs it and not the pod: a pod without its
    sync can still be reached and mended. Whatever else is wrong is an error, and so is a gate without its token.

    Raises:
        SettingsError: as `load`.
    """
    left = canonical(environ)
    failed: dict[str, str] = {}
    while True:
        settings, problems = parse(environ if not failed else left, whole=True)
        kept = [problem for problem in problems if not _of_a_part(problem, left)]
        if settings is not None and not problems:
            return settings, left, failed
        if kept or not problems:
            raise SettingsError(told(problems))
        for problem in problems:
            part = _PARTS[problem.name]
            failed[part] = "; ".join(filter(None, (failed.get(part), problem.text)))
            left.pop(problem.name, None)
            if part == "sync":
                left["ENABLE_R2_SYNC"] = "false"


def _of_a_part(problem: Problem, environ: Mapping[str, str]) -> bool:
    value = environ.get(problem.name, "")
    return problem.name in _PARTS and (value == "" or UNSUBSTITUTED.search(value) is not None)
