"""The one root exception and its leaves' exit codes: 0 ok, 1 failed, 2 usage, 3 partly done, 75 try again later."""


class HearmemanError(Exception):
    """What happened, what it means and what to do, in one message; ends the command with `exit_code`."""

    exit_code = 1


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
