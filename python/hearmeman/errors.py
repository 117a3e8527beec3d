"""The one root exception and its leaves' exit codes: 0 ok, 1 failed, 2 usage, 3 partly done."""


class HearmemanError(Exception):
    """What happened, what it means and what to do, in one message; ends the command with `exit_code`."""

    exit_code = 1


class UsageError(HearmemanError):
    """The command or a variable was given wrongly; nothing was started."""

    exit_code = 2


class PartlyDoneError(HearmemanError):
    """Some of the work was done and kept; the message names what was not."""

    exit_code = 3
