"""What may go wrong between this machine and RunPod, and the exit code of each."""

from __future__ import annotations


class PodError(Exception):
    """What happened, what it means and how to fix it, in one message; ends the command with `exit_code`."""

    exit_code = 1


class UsageError(PodError):
    """The command was given wrongly; nothing was asked of RunPod."""

    exit_code = 2


class NoCapacityError(PodError):
    """No GPU that was acceptable is free; nothing was created."""

    exit_code = 4


class ApiError(PodError):
    """RunPod refused a request.

    `status` is HTTP's, `title`, `detail` and `errors` are RunPod's own words (RFC 9457).
    """

    def __init__(self, action: str, status: int, title: str, detail: str, errors: tuple[str, ...] = ()) -> None:
        self.status = status
        self.title = title
        self.detail = detail
        self.errors = errors
        lines = [f"RunPod refused to {action}: {status} {title}: {detail}".rstrip(": ")]
        lines += [f"  {error}" for error in errors]
        if status in _ADVICE:
            lines.append(_ADVICE[status])
        super().__init__("\n".join(lines))


class UnknownOutcomeError(PodError):
    """A request that changes something was sent, and no answer says whether it was carried out."""


class SilentError(PodError):
    """A stream of events is open and brings nothing."""


class NoJsonError(PodError):
    """An answer that is not RunPod's."""


_ADVICE = {
    401: "Check the key: RUNPOD_API_KEY, or `runpodctl config`. RunPod's console makes keys under Settings, API Keys.",
    402: "The account has too little credit: a pod needs enough for one hour. Add some in RunPod's console under "
    "Billing.",
    403: "The key may not do this: make one with read and write access to pods.",
    404: "It was not found in this account; `hearmeman-pod list` shows its pods.",
    409: "RunPod does not allow this in the present state: `hearmeman-pod list` shows it. A pod with a network "
    "volume can be "
    "terminated and not stopped.",
    429: "RunPod is limiting requests: wait a minute and try again.",
}
