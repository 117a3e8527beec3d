"""Values as people write them: blanks and quotes around them, any case, units; and sentences where one is wrong."""

from __future__ import annotations

import base64
import binascii
import difflib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

from annotated_types import Ge, Le
from pydantic import SecretStr

_BLANKS = " \t\r\n\v\f\u00a0\u200b\u2060\ufeff"
_QUOTES = {'"': '"', "'": "'", "`": "`", "“": "”", "‘": "’"}
TRUE = frozenset({"1", "on", "t", "true", "y", "yes", "enable", "enabled"})
FALSE = frozenset({"0", "off", "f", "false", "n", "no", "disable", "disabled"})
_UNITS: dict[str, dict[str, float]] = {
    "seconds": {"s": 1, "sec": 1, "second": 1, "m": 60, "min": 60, "minute": 60, "h": 3600, "hour": 3600, "d": 86400},
    "GB": {"g": 1, "gb": 1, "gib": 1.073741824, "tb": 1000, "t": 1000, "tib": 1099.511627776, "mb": 0.001},
}


def cleaned(text: str) -> str:
    """Take blanks, and quotes that enclose all of it, from around a value."""
    text = text.strip(_BLANKS)
    while len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and not {text[0], text[-1]} & set(text[1:-1]):
        text = text[1:-1].strip(_BLANKS)
    return text


@dataclass(frozen=True)
class Shape:
    """What a text must look like."""

    takes: str
    """What it takes, for errors and for docs."""
    read: Callable[[str], str]
    """Gives the text in its usual form; raises ValueError, with a reason or without one."""


@dataclass(frozen=True)
class Unit:
    """A number's unit, which may be written behind it."""

    name: str


def _folder(text: str) -> str:
    if not text.startswith("/") or not text.isprintable():
        raise ValueError
    parts = text.split("/")
    if ".." in parts:
        raise ValueError("'..' in a path leads elsewhere")
    return "/" + "/".join(part for part in parts if part not in ("", "."))


def _url(text: str) -> str:
    found = urlsplit(text)
    if found.scheme.lower() not in ("http", "https") or not found.hostname or not re.fullmatch(r"[\x21-\x7e]+", text):
        raise ValueError
    if "<" in text or ">" in text:
        raise ValueError("put your own name in the place of <...>")
    if found.username is not None or found.query or found.fragment:
        raise ValueError("leave out the login, and everything from '?' or '#'")
    try:
        _ = found.port
    except ValueError:
        raise ValueError("the port is not a number from 0 to 65535") from None
    return text.rstrip("/")


def _bucket(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", text):
        raise ValueError
    return text


def _cache(text: str) -> str:
    bucket, _, prefix = text.removeprefix("s3://").partition("/")
    if not text.startswith("s3://"):
        raise ValueError
    prefix = prefix.strip("/")
    return f"s3://{_bucket(bucket)}" + (f"/{prefix}" if prefix else "")


def _host(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.:%-]+", text):
        raise ValueError
    return text


def _origin(text: str) -> str:
    found = text.lower().rstrip("/")
    if not re.fullmatch(r"\*|null|https?://(\[[0-9a-f:]+\]|[a-z0-9_.-]+)(:[0-9]{1,5})?", found):
        raise ValueError
    return found


def _pod(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", text):
        raise ValueError
    return text


def _digits(text: str) -> str:
    if not re.fullmatch(r"[0-9]+", text):
        raise ValueError
    return text


def split(text: str) -> tuple[str, ...]:
    """Read a list as people type it: words separated by commas, semicolons or blanks, with or without [ ] and quotes."""
    words = re.split(rf"[,;\s{_BLANKS}]+", text.strip("[](){}" + _BLANKS))
    return tuple(word for word in map(cleaned, words) if word)


def _ids(text: str) -> str:
    return ",".join(split(text))


def _extensions(text: str) -> str:
    words = [word.lstrip("*").lstrip(".").lower() for word in split(text)]
    if not words or any(not re.fullmatch(r"\w+", word) for word in words):
        raise ValueError
    return ",".join(words)


def several(*choices: str) -> Shape:
    """Make the shape of a list of words that are known."""

    def read(text: str) -> str:
        found = [choice(word, choices) for word in split(text)]
        if not found or None in found:
            wrong = [word for word, meant in zip(split(text), found, strict=True) if meant is None]
            raise ValueError(_near(wrong[0], choices) if wrong else "")
        return ",".join(dict.fromkeys(word for word in found if word))

    return Shape(f"one or more of {', '.join(choices)}, separated by commas", read)


Folder = Annotated[str, Shape("an absolute path, such as /workspace/models", _folder)]
Url = Annotated[str, Shape("an address that begins with https:// or http://", _url)]
Endpoint = Annotated[
    str, Shape("an address such as https://ACCOUNT.r2.cloudflarestorage.com, without the bucket", lambda text: text)
]
Bucket = Annotated[str, Shape("the bucket's name alone: 3 to 63 lowercase letters, digits, dots and hyphens", _bucket)]
Prefix = Annotated[
    str, Shape("folders separated by '/', such as outputs or team/outputs", lambda text: text.strip("/"))
]
CacheUrl = Annotated[str, Shape("s3://BUCKET or s3://BUCKET/PREFIX", _cache)]
Hosts = Annotated[tuple[str, ...], Shape("addresses to listen on, such as 0.0.0.0,::", _host)]
Host = Annotated[str, Shape("an address to listen on, such as 0.0.0.0 or 127.0.0.1", _host)]
Origins = Annotated[
    tuple[str, ...], Shape("web pages without a path, such as https://chat.example.com, or * for all", _origin)
]
PodName = Annotated[str, Shape("letters, digits, dots, hyphens and underscores", _pod)]
Digits = Annotated[str, Shape("digits", _digits)]
Ids = Annotated[str, Shape("names separated by commas", _ids)]
Extensions = Annotated[str, Shape("file name extensions separated by commas, such as png,mp4", _extensions)]


def takes(field: Any) -> str:
    """Say what a variable takes."""
    kind = field.annotation
    if kind is bool:
        return "true or false"
    if kind in (int, float):
        noun = "a whole number" if kind is int else "a number"
        unit = next((f" of {mark.name}" for mark in field.metadata if isinstance(mark, Unit)), "")
        least, most = _limits(field)
        limits = f", {least:g} or more" if most == math.inf else f" from {least:g} to {most:g}"
        return noun + unit + (limits if least > -math.inf else "")
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    if kind == SecretStr | None:
        return "printable characters without spaces"
    return _shape(field).takes


def read(field: Any, text: str) -> Any:
    """Give a variable's value as its type.

    Raises:
        ValueError: what the variable takes, and why this is not that; never the text itself.
    """
    kind = field.annotation
    try:
        if kind is bool:
            return _flag(text)
        if kind in (int, float):
            return _number(text, field)
        if get_origin(kind) is Literal:
            found = choice(text, get_args(kind))
            if found is None:
                raise ValueError(_near(text, get_args(kind)))
            return found
        if kind == SecretStr | None:
            return _secret(text)
        if get_origin(kind) is tuple:
            words = split(text)
            if not words:
                raise ValueError
            return tuple(_shape(field).read(word) for word in words)
        return _shape(field).read(text)
    except ValueError as error:
        why = f": {error}" if str(error) else ""
        raise ValueError(f"must be {takes(field)}{why}") from None


_TEXT = Shape("text", lambda text: text)


def _shape(field: Any) -> Shape:
    return next((mark for mark in field.metadata if isinstance(mark, Shape)), _TEXT)


def _flag(text: str) -> bool:
    word = text.casefold()
    if word not in TRUE | FALSE:
        raise ValueError
    return word in TRUE


def _number(text: str, field: Any) -> int | float:
    kind = field.annotation
    unit = next((mark.name for mark in field.metadata if isinstance(mark, Unit)), "")
    exponent = "" if kind is int else "(?:[eE][+-]?[0-9]+)?"
    found = re.fullmatch(rf"([+-]?(?:[0-9]+(?:[.,][0-9]*)?|[.][0-9]+){exponent})\s*([A-Za-z]*)", text)
    if found is None:
        raise ValueError
    suffix = found[2].lower()
    factors: dict[str, float] = {"": 1.0, **_UNITS.get(unit, {})}
    factor = factors.get(suffix, factors.get(suffix.removesuffix("s")))
    if factor is None:
        raise ValueError(f"{found[2]!r} is not a unit here")
    value = float(found[1].replace(",", ".")) * factor
    least, most = _limits(field)
    if not least <= value <= most or not math.isfinite(value) or (kind is int and value != int(value)):
        raise ValueError
    return int(value) if kind is int else value


def _limits(field: Any) -> tuple[float, float]:
    marks: Sequence[Any] = field.metadata
    least = next((float(mark.ge) for mark in marks if isinstance(mark, Ge)), -math.inf)  # type: ignore[arg-type]
    most = next((float(mark.le) for mark in marks if isinstance(mark, Le)), math.inf)  # type: ignore[arg-type]
    return least, most


def choice(text: str, choices: Sequence[str]) -> str | None:
    """Find which choice is meant, whatever its case, blanks, hyphens and underscores; None if none is."""
    folded = {_folded(name): name for name in choices}
    if "true" in choices:
        folded |= {word: str(word in TRUE).lower() for word in TRUE | FALSE}
    return folded.get(_folded(text))


def _folded(text: str) -> str:
    return re.sub(r"[\s_-]+", "", text).casefold()


def _near(text: str, choices: Sequence[str]) -> str:
    near = difflib.get_close_matches(_folded(text), [_folded(name) for name in choices], n=1)
    meant = choice(near[0], choices) if near else None
    return f"did you mean {meant}?" if meant else ""


def _secret(text: str) -> str:
    if re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", text):
        raise ValueError(
            "it contains a line break or another control character: something else was pasted with it, copy it again"
        )
    if re.search(r"\s", text):
        raise ValueError("it contains a space: give it alone, without a word before it")
    if not re.fullmatch(r"[\x21-\x7e]+", text):
        raise ValueError("it contains a character that no key has: copy it again")
    return text


_KEY_START = re.compile(
    r"(?:^|(?<=\s))((?:ssh|ecdsa)-[\w-]+(?:@[\w.-]+)?|sk-[\w@.-]+)\s+(AAAA[A-Za-z0-9+/]*={0,2})(?=\s|$)"
)


def key_problem(line: str) -> str:
    """Say what is wrong with one line of SSH public keys, as sshd would read it; empty if nothing is."""
    found = _KEY_START.search(line)
    if found is None:
        if "PRIVATE KEY" in line:
            return "is part of a PRIVATE key: keep it secret, and give the line of the .pub file"
        return "is not an SSH public key, which looks like 'ssh-ed25519 AAAA... name'"
    try:
        content = base64.b64decode(found[2], validate=True)
    except binascii.Error:
        return "is cut off: copy the whole line of the .pub file"
    names, at = [], 0
    while at < len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        names.append(content[at + 4 : at + 4 + length])
        at += 4 + length
    if at != len(content) or len(names) < 2:
        return "is cut off: copy the whole line of the .pub file"
    if names[0].decode(errors="replace") != found[1]:
        return f"says {found[1]}, but holds a key of another kind: copy the whole line of the .pub file"
    return ""


def second_key(line: str) -> bool:
    """Tell whether a line holds another key behind its first, which sshd takes for a comment."""
    return len(_KEY_START.findall(line)) > 1


LONGEST_PREFIX = 100


def prefix_problem(prefix: str) -> str:
    """Say why `prefix` cannot be the first part of a key; empty if it can.

    A bucket that is copied to a disk must not leave its folder, and a console must be able to open every part.
    """
    if not 0 < len(prefix.encode(errors="surrogateescape")) <= LONGEST_PREFIX:
        return f"must have from 1 to {LONGEST_PREFIX} bytes"
    if any(part in ("", ".", "..") for part in prefix.split("/")):
        return "must be names joined by single slashes, such as outputs or team/outputs, none of them . or .."
    if any(character < " " or character == "\x7f" or "\ud800" <= character <= "\udfff" for character in prefix):
        return "must hold no control characters and be valid UTF-8"
    return ""
