"""What stage a file is at, and the one function that moves it on; pure, so that every order of events can be tried."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class Phase(StrEnum):
    """The stages of a file, named as they are shown."""

    WAITING = "waiting"
    """Nobody is at it, or those who are will soon be gone; the next connection begins alone."""
    VERIFYING = "verifying"
    """A file is at its place already and is being read."""
    STARTING = "starting"
    """One connection has asked, and nothing is known yet of how the file is served."""
    FETCHING = "fetching"
    """Bytes arrive, over as many connections as are of use."""
    CHECKING = "checking"
    """All bytes are there; they are compared and put in their place."""
    PRESENT = "present"
    FAILED = "failed"


class Event(StrEnum):
    """What may happen to a file."""

    VERIFY = "a thread begins to read the file that is at its place"
    MATCHES = "that file is right"
    DIFFERS = "that file is not right"
    BEGIN = "a connection begins"
    ANSWERED = "a server sends bytes of it"
    SET_BACK = "a connection failed and may be made again"
    AGAIN = "what has arrived is of no use: it begins again from its first byte"
    WHOLE = "the last missing byte has arrived and all are hashed"
    PLACED = "it was right and is at its place"
    WRONG = "it was whole and wrong, and is worth another attempt"
    REFUSED = "it was whole and cannot be accepted"
    FAIL = "a connection met what trying again does not help"
    GIVE_UP = "nothing has moved for too long"


@dataclass(frozen=True)
class State:
    """Where a file is."""

    phase: Phase = Phase.WAITING
    """The stage."""
    attempt: int = 0
    """Counts how often it was begun again; what belongs to an earlier attempt changes nothing."""

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.phase in (Phase.PRESENT, Phase.FAILED)


_UNDER_WAY = (Phase.WAITING, Phase.STARTING, Phase.FETCHING)
_NEXT: dict[tuple[Phase, Event], Phase] = {
    (Phase.WAITING, Event.VERIFY): Phase.VERIFYING,
    (Phase.VERIFYING, Event.MATCHES): Phase.PRESENT,
    (Phase.VERIFYING, Event.DIFFERS): Phase.WAITING,
    (Phase.WAITING, Event.BEGIN): Phase.STARTING,
    (Phase.FETCHING, Event.BEGIN): Phase.FETCHING,
    (Phase.STARTING, Event.ANSWERED): Phase.FETCHING,
    (Phase.FETCHING, Event.ANSWERED): Phase.FETCHING,
    (Phase.STARTING, Event.SET_BACK): Phase.WAITING,
    (Phase.FETCHING, Event.SET_BACK): Phase.FETCHING,
    **{(phase, Event.AGAIN): Phase.WAITING for phase in _UNDER_WAY},
    **{(phase, Event.FAIL): Phase.FAILED for phase in _UNDER_WAY},
    **{(phase, Event.WHOLE): Phase.CHECKING for phase in _UNDER_WAY},
    (Phase.CHECKING, Event.PLACED): Phase.PRESENT,
    (Phase.CHECKING, Event.WRONG): Phase.WAITING,
    (Phase.CHECKING, Event.REFUSED): Phase.FAILED,
    **{(phase, Event.GIVE_UP): Phase.FAILED for phase in (*_UNDER_WAY, Phase.VERIFYING, Phase.CHECKING)},
}
_BEGIN_AGAIN = (Event.AGAIN, Event.WRONG)


def advance(state: State, event: Event, attempt: int) -> State | None:
    """Give the state after `event`, which belongs to `attempt`; None where it comes too late and changes nothing.

    What is over stays as it is: no event leads out of PRESENT or FAILED.
    """
    if attempt != state.attempt or (state.phase, event) not in _NEXT:
        return None
    moved = replace(state, phase=_NEXT[state.phase, event])
    return replace(moved, attempt=state.attempt + 1) if event in _BEGIN_AGAIN else moved
