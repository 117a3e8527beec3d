"""What a build step says when its input is wrong: one sentence, what and what to do."""


class BuildError(Exception):
    """A build input is wrong or missing; the message names it and the mend."""
