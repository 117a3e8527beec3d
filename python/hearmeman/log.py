"""One line per event: UTC time, event name, key=value fields."""

from __future__ import annotations

import json
import sys
import time

from hearmeman.redact import redact


def stamp(now: float, digits: int = 0) -> str:
    """Render `now` (Unix seconds) as UTC in ISO 8601, with `digits` of its fraction."""
    whole = int(now)
    fraction = f".{int((now - whole) * 10**digits):0{digits}d}" if digits else ""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + fraction + "Z"


def line(event: str, fields: dict[str, object], now: float) -> str:
    """Render one event at `now` (Unix seconds). Values with blanks or quotes are JSON strings."""
    parts = [f"{key}={_value(value)}" for key, value in fields.items() if value is not None]
    return " ".join([stamp(now), event, *parts])


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    text = str(value)
    plain = text and all(c.isprintable() and c not in " \"'=" for c in text)
    return text if plain else json.dumps(text, ensure_ascii=False)


def log(event: str, **fields: object) -> None:
    """Write one event to standard error, flushed; the secrets that this process knows are not in it."""
    print(redact(line(event, fields, time.time())), file=sys.stderr, flush=True)
