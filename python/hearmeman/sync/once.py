"""Says each thing once: an event when it comes, a problem when it comes and when it is gone."""

from __future__ import annotations

from hearmeman.log import log


class Once:
    """What was said already."""

    def __init__(self) -> None:
        """Start with nothing said."""
        self._said: set[tuple[str, object]] = set()

    def say(self, event: str, of: object = "", **fields: object) -> None:
        """Log an event unless it was logged before about the same thing."""
        if (event, of) not in self._said:
            self._said.add((event, of))
            log(event, **fields)

    def say_while(self, event: str, problem: str, **fields: object) -> None:
        """Log a problem when it comes and when it is gone; an empty one is none."""
        if problem:
            self.say(event, **fields)
        elif (event, "") in self._said:
            self._said.discard((event, ""))
            log("sync.healed", of=event)
