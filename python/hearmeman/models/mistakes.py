"""What pydantic finds wrong, in words for a person who writes a catalogue or an address."""

from __future__ import annotations

from pydantic import ValidationError
from pydantic_core import ErrorDetails

_SENTENCES = {
    "json_invalid": "is not JSON: {error}",
    "missing": "is missing",
    "extra_forbidden": "is not a known field",
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "literal_error": "must be {expected}",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "string_pattern_mismatch": "must match {pattern}",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "union_tag_invalid": "must have kind = {expected_tags}",
    "union_tag_not_found": "needs a kind",
}


def sentence(found: ErrorDetails) -> str:
    """Say what is wrong with the value; where it is, is `found["loc"]`."""
    ctx = found.get("ctx", {})
    if found["type"] == "value_error":
        return str(ctx["error"])
    return _SENTENCES.get(found["type"], "is not a value for this field").format_map(ctx)


def sentences(error: ValidationError) -> str:
    """Say all of it in one line, each with its place."""
    return "; ".join(": ".join((*map(str, item["loc"]), sentence(item))) for item in error.errors())
