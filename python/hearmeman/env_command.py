"""`hearmeman env`: every variable, its value, where that comes from, and its default; secrets show as ***."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hearmeman.boot.image import IMAGE_FILE, read_image


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hearmeman env`."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--image-file", type=Path, default=IMAGE_FILE, help="the image's image.json")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Print the table, then complain about what is wrong in it."""
    from hearmeman.settings import load

    image_env = read_image(args.image_file).env if args.image_file.exists() else {}
    table = rows({**image_env, **environ}, image_env)
    if args.json:
        print(json.dumps(table, indent=2))
    else:
        columns = ("name", "value", "from", "default")
        widths = [max(len(name), *(len(row[name]) for row in table)) for name in columns]
        for row in ({name: name for name in columns}, *table):
            cells = zip((row[name] for name in columns), widths, strict=True)
            print("  ".join(text.ljust(width) for text, width in cells).rstrip())
    load({**image_env, **environ}, whole=True)
    return 0


def rows(environ: Mapping[str, str], image_env: Mapping[str, str]) -> list[dict[str, str]]:
    """Make one row per variable: name, value, from (environment, image or default), default, help."""
    from hearmeman.settings import SECRETS, Settings

    table = []
    for field_name, field in Settings.model_fields.items():
        name = field_name.upper()
        default = _text(field.default)
        given = environ.get(name, "")
        value = ("***" if name in SECRETS else given) if given else default
        source = "default" if not given else "image" if image_env.get(name) == given else "environment"
        table.append(
            {"name": name, "value": value, "from": source, "default": default, "help": field.description or ""}
        )
    return table


def _text(default: Any) -> str:
    if default is None:
        return ""
    return str(default).lower() if isinstance(default, bool) else str(default)
