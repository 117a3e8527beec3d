"""Why a file could not be had: one class for each reason, each with its own sentence and mend."""

from __future__ import annotations

from hearmeman.errors import HearmemanError, PartlyDoneError


class FetchError(HearmemanError):
    """A file could not be had, and trying again at once would not help."""


class GatedError(FetchError):
    """The source wants a licence accepted or a token sent."""


class NotFoundError(FetchError):
    """The source has no such file, revision or repository."""


class MovedError(FetchError):
    """The source now offers another file than the catalogue names; nothing is corrupt."""


class NotAFileError(FetchError):
    """The source sent a web page or a message instead of the file."""


class DiskFullError(FetchError):
    """The disk or its quota is full."""


class StalledError(FetchError):
    """Nothing arrived for DOWNLOAD_TIMEOUT seconds, whatever was tried."""


class CorruptError(FetchError):
    """A file is not what it should be."""


class LeaseLostError(FetchError):
    """Another pod has taken over the models folder."""


class AllFailedError(HearmemanError):
    """Nothing of what was asked for is there."""


class SomeFailedError(PartlyDoneError):
    """Some files are there and some are not."""


class TransientError(Exception):
    """It may work when tried again: the reason, and the seconds that the server asks to wait."""

    def __init__(self, reason: str, wait: float = 0) -> None:
        super().__init__(reason)
        self.wait = wait


class ExpiredError(Exception):
    """A link that worked does not any more: ask the source for a new one."""
