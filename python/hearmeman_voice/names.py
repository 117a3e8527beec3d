"""Names of voices: which are allowed, where the files are, and OpenAI's names for the voices that are always there."""

import re
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

_NAME = re.compile(r"\w[\w .@()'-]{0,79}")


class BadName(VoiceError):
    """Not a possible name for a voice."""


def check_name(name: str) -> str:
    """The name in Unicode's composed form. Raises: BadName."""
    composed = unicodedata.normalize("NFC", name).strip()
    if not _NAME.fullmatch(composed) or composed.endswith(".") or composed.lower() == "default":
        raise BadName(
            f"a voice cannot be called {name[:60]!r}: use up to 80 letters, digits, spaces and . _ - @ ( ) ', "
            "beginning with a letter or digit; default is the name of the voice that is chosen as such"
        )
    return composed


def safe_child(base: Path, name: str) -> Path:
    """The path of a file called `name` directly in `base`, wherever a link of that name would lead.

    Raises: BadName when it would be elsewhere, or no file system could hold it.
    """
    if not name or name in {".", ".."} or any(sign in name for sign in "/\\\0"):
        raise BadName(f"{name[:60]!r} is not a file name")
    try:
        if len(name.encode()) > 200:
            raise BadName(f"{name[:60]!r}… is too long for a file name")
    except UnicodeEncodeError as problem:
        raise BadName(f"{name[:60]!r} is not a file name") from problem
    path = base / name
    if path.is_symlink():
        raise BadName(f"{name[:60]!r} is a link, which may lead anywhere")
    return path
