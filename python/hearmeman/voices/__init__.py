"""The voices that a person adds to the voice APIs, as a command."""
