"""Why something was not spoken: a bad request, a full queue, an engine that is not ready, or one that failed."""


class VoiceError(Exception):
    """Base of every error answer of a voice server; its text is for the person who asked."""

    @property
    def message(self) -> str:
        return str(self)


class Refused(VoiceError):
    """The request itself is at fault, and sending it again will not help. `param` names the field at fault (None: the
    request as a whole), `code` is a short word for programs ("invalid", "not_found", "exists", "too_large").
    """

    def __init__(self, param: str | None, message: str, code: str = "invalid") -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class Full(VoiceError):
    """The queue is full; `retry_after` is in whole seconds."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotReady(VoiceError):
    """The engine cannot speak yet: its weights are missing or being loaded. `progress` says how far along it is.
    `lasting` is true when waiting alone will not help, because somebody has to do something first.
    """

    def __init__(self, message: str, progress: str, lasting: bool = False) -> None:
        super().__init__(message)
        self.progress = progress
        self.lasting = lasting


class Failed(VoiceError):
    """The engine failed on this request only; the next one may well succeed."""


class Broken(VoiceError):
    """The engine's process is gone or its GPU context is unusable; the server has to restart."""
