"""The one root exception and its branches' exit codes: 0 ok, 1 failed, 2 usage, 3 partly done, 75 try again later.

    HearmemanError          1  it failed; leaves are declared beside the code that raises them
    ├── UsageError          2  the command or a variable is wrong, nothing was started
    │   └── SettingsError      in settings/load.py: every wrong variable, in `problems`
    ├── PartlyDoneError     3  some of it was done and is kept
    └── PassingError       75  the same may work later

Leaves keep what a caller can use (file, field, value, what is allowed) as attributes; `facts` gives them to --json.
"""

from __future__ import annotations

import dataclasses
from typing import Any


class HearmemanError(Exception):
    """What happened, what it means and what to do, in one message; ends the command with `exit_code`."""

    exit_code = 1

    def facts(self) -> dict[str, Any]:
        """Give the kind, the message and the error's own attributes as JSON values."""
        own = {name: _json(value) for name, value in vars(self).items() if not name.startswith("_")}
        return {"error": type(self).__name__, "message": str(self), "exit_code": self.exit_code, **own}


def _json(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _json(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_json(item) for item in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


class UsageError(HearmemanError):
    """The command or a variable was given wrongly; nothing was started."""

    exit_code = 2


class PartlyDoneError(HearmemanError):
    """Some of the work was done and kept; the message names what was not."""

    exit_code = 3


class PassingError(HearmemanError):
    """It did not work for a cause that may pass by itself: the same command may work later, and boot runs it again.

    75 is what sysexits.h calls EX_TEMPFAIL.
    """

    exit_code = 75
