"""`hearmeman env`: every variable, its value, where that comes from, and its default; secrets show as ***."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hearmeman import terminal
from hearmeman.image import IMAGE_FILE, RUN_DIR, read_image
from hearmeman.state_file import write_named

MOST_VARIABLES = 50
"""As many as RunPod takes."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hearmeman env`."""
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON, with the problems in it")
    form.add_argument(
        "--template",
        action="store_true",
        help="print a RunPod template: what differs from the defaults, and what the image's tier recommends",
    )
    form.add_argument("--docs", type=Path, metavar="FILE", help="write the reference of all variables, as Markdown")
    parser.add_argument("--image-file", type=Path, default=IMAGE_FILE, help="the image's image.json")
    parser.add_argument("--run-dir", type=Path, default=RUN_DIR, help="boot's run folder")
    parser.epilog = "Exits with 2 if something is wrong; --json names it in the document and exits with 0."


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Print the table, then complain about what is wrong in it."""
    from hearmeman.settings import SettingsError, parse
    from hearmeman.settings.running import with_given

    if args.docs:
        write_named(args.docs, markdown())
        return 0
    image = read_image(args.image_file) if args.image_file.exists() else None
    image_env = image.env if image else {}
    recommended = image.recommended if image and args.template else {}
    merged = {**image_env, **recommended, **with_given(environ, args.run_dir)}
    problems = parse(merged, whole=True)[1]
    if args.template:
        if problems:
            raise SettingsError(problems, "no template is printed")
        print(json.dumps(template(merged, image_env), indent=2))
        return 0
    table = rows(merged, image_env)
    if args.json:
        told = {problem.name: problem.text for problem in problems}
        shown = [{**row, "problem": told.pop(row["name"], "")} for row in table]
        print(json.dumps([*shown, *({"name": name, "problem": text} for name, text in told.items())], indent=2))
        return 0
    # Names stay whole: docs/environment.md has the defaults too.
    columns = ("name", "value", "from", "default") if terminal.width() >= 80 else ("name", "value", "from")
    print(
        "\n".join(
            terminal.table(
                ([row[name] for name in columns] for row in table),
                columns,
                wraps=(1, len(columns) - 1) if len(columns) > 3 else (1,),
            )
        )
    )
    if problems:
        raise SettingsError(problems, "a pod would not start")
    return 0


def rows(environ: Mapping[str, str], image_env: Mapping[str, str]) -> list[dict[str, str]]:
    """Make one row per variable: name, value, from (environment, image, default or an old spelling), default, help."""
    from hearmeman.settings import ALIASES, GROUPS, NAMES, SECRETS, Settings
    from hearmeman.settings.declare import renamed

    found, spelt, _ = renamed(environ, ALIASES, NAMES)
    table = []
    for name in (name for _, names in GROUPS for name in names):
        field = Settings.model_fields[name.lower()]
        default = _text(field.default)
        given = found.get(name, "")
        value = ("***" if name in SECRETS else given) if given else default
        source = "default" if not given else "image" if image_env.get(name) == given else spelt.get(name, "environment")
        table.append(
            {"name": name, "value": value, "from": source, "default": default, "help": field.description or ""}
        )
    return table


def template(environ: Mapping[str, str], image_env: Mapping[str, str]) -> dict[str, Any]:
    """Make the parts of a RunPod template that follow from the settings: `env` and `ports`.

    A secret's value is replaced by a reference to RunPod's secret, whose name docs/environment.md has.

    Raises:
        UsageError: more variables differ from the defaults than RunPod takes.
    """
    from hearmeman.door.ports import doors
    from hearmeman.errors import UsageError
    from hearmeman.settings import RUNPOD_SECRETS, Settings, canonical, load
    from hearmeman.settings.declare import extra_of

    settings = load(environ)
    found = canonical(environ)
    env = {}
    for field_name, field in Settings.model_fields.items():
        name = field_name.upper()
        differs = name in found and getattr(settings, field_name) != field.default
        if differs and not extra_of(field)["given"] and image_env.get(name) != found[name]:
            env[name] = f"{{{{ RUNPOD_SECRET_{RUNPOD_SECRETS[name]} }}}}" if name in RUNPOD_SECRETS else found[name]
    if len(env) > MOST_VARIABLES:
        raise UsageError(
            f"{len(env)} variables differ from the defaults, but RunPod takes at most {MOST_VARIABLES}: "
            "unset some, or use an image whose tier defaults to them"
        )
    # RunPod gives PUBLIC_KEY at the start, so SSH's port is named whether there is a key yet or not.
    ports = [f"{door.port}/http" for door in doors(settings) if door.is_public and door.service != "SSH"]
    return {"env": env, "ports": [*ports, f"{settings.ssh_port}/tcp"]}


def markdown() -> str:
    """Write docs/environment.md."""
    from hearmeman.settings import GROUPS, RUNPOD_SECRETS, SECRETS, Settings
    from hearmeman.settings.declare import extra_of
    from hearmeman.settings.values import takes

    lines = [
        "# Environment variables",
        "",
        "Made by `hearmeman env --docs docs/environment.md`; do not edit by hand. An empty value counts as unset.",
        "Spaces and quotes around a value do not matter, nor does the case of words such as true or consumer.",
        "Secrets are never printed, and each goes only to the process that needs it. A secret's name under "
        "*Takes* is what",
        "it is called in RunPod's console: a template refers to `hf_token` as `{{ RUNPOD_SECRET_hf_token }}`.",
    ]
    for heading, names in GROUPS:
        lines += ["", f"## {heading}", "", "| Variable | Default | Takes | Meaning |", "| --- | --- | --- | --- |"]
        for name in names:
            field = Settings.model_fields[name.lower()]
            meaning = [field.description or ""]
            aliases = extra_of(field)["aliases"]
            meaning += [f"Also spelt {', '.join(f'`{alias}`' for alias in aliases)}."] if aliases else []
            default = f"`{_text(field.default)}`" if _text(field.default) else ""
            called = RUNPOD_SECRETS.get(name)
            kind = f"secret `{called}`" if called else "secret" if name in SECRETS else takes(field)
            lines.append(f"| `{name}` | {default} | {kind} | {'. '.join(meaning)} |")
    return "\n".join(lines) + "\n"


def _text(default: Any) -> str:
    if default is None:
        return ""
    if isinstance(default, tuple):
        return ",".join(default)
    return str(default).lower() if isinstance(default, bool) else str(default)
