"""Why a file could not be had: one class for each reason, each with its own sentence and fix."""

from __future__ import annotations

import errno

from hearmeman.errors import HearmemanError, PartlyDoneError, PassingError


class FetchError(HearmemanError):
    """A file could not be had, and trying again at once would not help."""

    passing = False
    """Whether the cause may pass by itself, so that a later fetch may succeed."""


class GatedError(FetchError):
    """The source wants a licence accepted or a token sent."""


class NotFoundError(FetchError):
    """The source has no such file, revision or repository."""


class NotServedError(FetchError):
    """The source states that it has the file, and what serves its bytes does not give them."""

    passing = True


class MovedError(FetchError):
    """The source now offers another file than the catalogue names; nothing is corrupt."""


class NotAFileError(FetchError):
    """The source sent a web page or a message instead of the file."""


class UnsafeError(FetchError):
    """The source itself says that the file is dangerous."""


class DiskFullError(FetchError):
    """The disk or its quota is full."""

    passing = True


class StalledError(FetchError):
    """Nothing arrived for DOWNLOAD_TIMEOUT seconds, whatever was tried."""

    passing = True


class CorruptError(FetchError):
    """A file is not what it should be."""


class LeaseLostError(FetchError):
    """Another pod has taken over the models folder."""

    passing = True


class AllFailedError(HearmemanError):
    """Nothing of what was asked for is there."""


class SomeFailedError(PartlyDoneError):
    """Some files are there and some are not."""


class MissingForNowError(PassingError):
    """Files are missing, some of them for a cause that may pass: a fetch that is started later may get them."""


def moved(name: str, source: object, what: str) -> MovedError:
    """Say that the source of the file `name` now has another one."""
    return MovedError(
        f"{name}: {source} {what}: the file changed upstream, nothing here is corrupt;"
        " run `hearmeman models lock` to take the new one"
    )


def stalled(name: str, seconds: float, why: str) -> StalledError:
    """Say that nothing arrived of the file `name`."""
    return StalledError(
        f"{name}: nothing arrived for {seconds:g} s ({why}): check the network;"
        " the next fetch resumes where this one stopped, DOWNLOAD_TIMEOUT sets the limit"
    )


def twice_wrong(name: str, source: object, size: int, why: str) -> CorruptError:
    """Say that the file `name` came whole and wrong, and did so again."""
    return CorruptError(
        f"{name}: {source} sent {size} bytes twice, and both times {why}:"
        " it was not kept; if upstream changed the file, run `hearmeman models lock`"
    )


def disk_error(name: str, place: str, missing: int, error: OSError) -> FetchError:
    """Say why the file `name` could not be written to `place`; `missing` bytes of it have not arrived."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = "the disk is full" if error.errno == errno.ENOSPC else "the volume's quota is used up"
        return DiskFullError(
            f"{name}: {what}, {missing} bytes are still missing: free some space or use a larger volume;"
            " the next fetch resumes where this one stopped"
        )
    return FetchError(f"{name}: {error.filename or place} cannot be written: {error.strerror}")


class TransientError(Exception):
    """It may work when tried again: the reason, and the seconds that the server asks to wait."""

    def __init__(self, reason: str, wait: float = 0) -> None:
        super().__init__(reason)
        self.wait = wait


class ContradictionError(TransientError):
    """An answer that contradicts what the source states: a new link is asked for, a few times; then `verdict` holds."""

    def __init__(self, verdict: FetchError, wait: float = 0) -> None:
        super().__init__(str(verdict), wait)
        self.verdict = verdict


class NoRangesError(ContradictionError):
    """Bytes that had begun to come by ranges come only as a whole; where that stays so, the file begins again."""
