"""One line per event, as the pod writes them: UTC time, event name, key=value fields."""

from __future__ import annotations

import json
import logging
import time

_OURS = logging.getLogger("hearmeman_voice")


class _Lines(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        if record.name != _OURS.name:
            record.message = f"{record.levelname} {record.name} {record.message}"
        return super().formatMessage(record)


def start_log() -> None:
    """Write this process's log to standard error, libraries' logs included."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def log(event: str, *, error: BaseException | None = None, **fields: object) -> None:
    """Write one event; the traceback of `error` follows it."""
    parts = [f"{key}={_value(value)}" for key, value in fields.items()]
    _OURS.log(logging.ERROR if error else logging.INFO, "%s", " ".join([event, *parts]), exc_info=error)


def _value(value: object) -> str:
    text = f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    plain = text and all(c.isprintable() and c not in " \"'=" for c in text)
    return text if plain else json.dumps(text, ensure_ascii=False)
