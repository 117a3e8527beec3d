"""What a build step says when its input is wrong: one sentence, what and what to do."""


class BuildError(Exception):
    """A build input is wrong or missing; the message names it and says what to do."""

    def __init__(self, message: str, said: str = "") -> None:
        super().__init__(message)
        self.said = said
        """All that a failed program printed, where the message holds only its end."""
