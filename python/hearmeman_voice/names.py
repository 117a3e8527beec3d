"""Names of voices: which are allowed, where the files are, and OpenAI's names for the voices that are always there."""

import unicodedata
from pathlib import Path

from hearmeman_voice.refusals import VoiceError

OPENAI = {
    "alloy": "female",
    "ash": "male",
    "ballad": "male",
    "cedar": "male",
    "coral": "female",
    "echo": "male",
    "fable": "male",
    "marin": "female",
    "nova": "female",
    "onyx": "male",
    "sage": "calm_female",
    "shimmer": "calm_female",
    "verse": "male",
}
"""The names that OpenAI's clients use, and the image's voice for each."""

_LONGEST = 80
"""Characters of a name."""
_MOST_BYTES = 248
"""Bytes of a file name: room for 80 letters of any alphabet in use; with a number added, it is still below the usual 255."""
_SIGNS = " ._-@()'"
"""Allowed in a name besides letters, their marks, and digits."""


class BadName(VoiceError):
    """Not a possible name for a voice."""


def check_name(name: str) -> str:
    """The name in Unicode's composed form. Raises: BadName."""
    composed = unicodedata.normalize("NFC", name).strip()
    if not _is_name(composed):
        raise BadName(
            f"a voice cannot be called {name[:60]!r}: use up to 80 letters, digits, spaces and . _ - @ ( ) ', "
            "with a letter or digit first and no dot last; default is the name of the voice that is chosen as such"
        )
    return composed


def _is_name(name: str) -> bool:
    kinds = [unicodedata.category(sign)[0] for sign in name]
    return (
        0 < len(name) <= _LONGEST
        and (kinds[0] in "LN" or name[0] == "_")
        and all(kind in "LMN" or sign in _SIGNS for kind, sign in zip(kinds, name, strict=True))
        and not name.endswith(".")
        and name.lower() != "default"
    )


def safe_child(base: Path, name: str) -> Path:
    """The path of a file called `name` directly in `base`, wherever a link of that name would lead.

    Raises: BadName when it would be elsewhere, or no file system could hold it.
    """
    if not name or name in {".", ".."} or any(sign in name for sign in "/\\\0"):
        raise BadName(f"{name[:60]!r} is not a file name")
    try:
        if len(name.encode()) > _MOST_BYTES:
            raise BadName(f"{name[:60]!r}… is too long for a file name")
    except UnicodeEncodeError as problem:
        raise BadName(f"{name[:60]!r} is not a file name") from problem
    path = base / name
    if path.is_symlink():
        raise BadName(f"{name[:60]!r} is a link, which may lead anywhere")
    return path
