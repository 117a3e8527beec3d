"""RunPod's own description of its API (REST v2), and the check of a body against it before it is sent."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema

from hearmeman_pod.errors import UsageError

FILE = Path(__file__).with_name("openapi.json")
"""The parts of RunPod's openapi.json (v2.0.0) that are used here, without its prose."""


@functools.cache
def description() -> dict[str, Any]:
    """The whole file."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


@functools.cache
def validator(name: str) -> jsonschema.Draft202012Validator:
    """A validator of one of the schemas, such as CreatePodRequest."""
    whole = description()
    if name not in whole["components"]["schemas"]:
        raise KeyError(name)
    return jsonschema.Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": whole["components"]},
        format_checker=jsonschema.FormatChecker(),
    )


def problems(name: str, body: object) -> list[str]:
    """Say what is wrong with `body`, one sentence a mistake, without any of its values: some are secret."""
    errors = list(validator(name).iter_errors(body))
    # Where a part is wrong, its parents complain too that they hold it.
    plain = [error for error in errors if error.validator != "unevaluatedProperties"] or errors
    found = []
    for error in plain:
        place = ".".join(str(part) for part in error.absolute_path) or "the request"
        found.append(f"{place}: {_rule(str(error.validator), error.validator_value)}")
    return found


def _rule(kind: str, value: Any) -> str:
    shown = json.dumps(value)[:120]
    words = {"minimum": "at least ", "maximum": "at most ", "minItems": "items at least ", "enum": "one of "}
    if kind == "minLength" and value == 1:
        return "may not be empty"
    return words[kind] + shown if kind in words else f"breaks the rule {kind}={shown}"


def check(name: str, body: Mapping[str, Any]) -> None:
    """Refuse a body that RunPod would refuse.

    Raises:
        UsageError: with every mistake.
    """
    wrong = problems(name, body)
    if wrong:
        raise UsageError(
            "RunPod would refuse this request, nothing was sent:\n" + "\n".join(f"  {text}" for text in wrong)
        )
