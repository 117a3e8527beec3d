"""Splits a text into chunks that an engine can speak: at sentence ends, then clauses, then spaces; nothing is lost."""

import re
import unicodedata

LIMIT = 300
"""The longest chunk for any engine: time and memory grow with its length, and a listener waits for the first."""
FIRST = 100
"""The first chunk is shorter, since it is what the listener waits for."""
UNCUT = 120
"""A first sentence up to this length stays whole, although longer than FIRST: another split costs more than it gains.
"""
SCRAP = 24
"""A shorter chunk is joined to its neighbour: engines speak gibberish when given a single word."""

_CLOSERS = r"[\"'”’»›)\]」』）]*"
_SENTENCE = re.compile(rf"[.!?…؟।]+{_CLOSERS}(?=\s|$)|[。！？｡]+{_CLOSERS}|\n+")
_CLAUSE = re.compile(rf"[,;:،؛]{_CLOSERS}(?=\s|$)|[—–、，；：]")
_BLANK = re.compile(r"(?=\s)")
_ABBREVIATIONS = frozenset(
    [
        "mr",
        "mrs",
        "ms",
        "dr",
        "prof",
        "st",
        "sr",
        "jr",
        "vs",
        "e.g",
        "i.e",
        "no",
        "vol",
        "fig",
        "gen",
        "col",
        "lt",
        "sgt",
        "rev",
        "hon",
        "capt",
        "bzw",
        "usw",
        "z.b",
        "d.h",
        "nr",
        "ca",
        "str",
        "mme",
        "mlle",
        "cf",
        "p.ex",
        "sig",
        "dott",
        "sra",
    ]
)


def speakable(text: str) -> bool:
    """Whether it has a letter or a digit; emoji and punctuation alone make no sound."""
    return any(unicodedata.category(character)[0] in "LN" for character in text)


def clean(text: str) -> str:
    """The text without control characters and lone surrogates, with single spaces; paragraphs stay separate."""
    lines = unicodedata.normalize("NFC", text).replace("\r", "\n").split("\n")
    kept = ("".join(" " if unicodedata.category(c) in {"Cc", "Cs", "Cn", "Co"} else c for c in line) for line in lines)
    return "\n".join(line for line in (" ".join(line.split()) for line in kept) if line)


def split(text: str, limit: int, language: str = "en") -> list[str]:
    """Cut into chunks of at most `limit` characters (and never more than LIMIT); put together they are the text.

    The first has about FIRST characters and at most UNCUT, so that a long text begins as soon as a short one does.
    """
    limit = max(1, min(limit, LIMIT))
    glue = "" if language.split("-")[0] in {"zh", "ja"} else " "
    sentences = _sentences(clean(text))
    if not sentences:
        return []
    head = [sentences[0]] if len(sentences[0]) <= min(UNCUT, limit) else _parts(sentences[0], min(FIRST, limit))
    # The rest of a long first sentence is split again: only its beginning had to be short.
    rest = [glue.join(head[1:])] if len(head) > 1 else []
    parts = [part for sentence in [*rest, *sentences[1:]] for part in _parts(sentence, limit)]
    return _joined(head[0], parts, limit, glue)


def _sentences(text: str) -> list[str]:
    found, begin = [], 0
    for match in _SENTENCE.finditer(text):
        if not _goes_on(text, match):
            found.append(text[begin : match.end()].strip())
            begin = match.end()
    found.append(text[begin:].strip())
    return [sentence for sentence in found if sentence]


def _goes_on(text: str, match: re.Match[str]) -> bool:
    """Whether the sentence continues: after an abbreviation, an initial or a quotation, or before a lower-case letter."""
    after = text[match.end() :].lstrip()[:1]
    if match.group()[0] not in ".…":
        return after.islower() and match.group()[-1] in "\"'”’»›)"
    before = text[: match.start()].split()[-1:] if match.start() else []
    word = before[0].lstrip("(\"'“‘[").lower() if before else ""
    return after.islower() or word in _ABBREVIATIONS or (len(word) == 1 and word.isalpha() and word.isascii())


def _parts(sentence: str, limit: int) -> list[str]:
    """Split one sentence into parts of at most `limit` characters, of similar size if nothing else decides."""
    parts = []
    while len(sentence) > limit:
        pieces = -(-len(sentence) // limit)
        goal = -(-len(sentence) // pieces)
        end = (
            _cut(sentence, _CLAUSE, limit // 3, limit)
            or _cut(sentence, _BLANK, 1, goal)
            or _cut(sentence, _BLANK, 1, limit)
        )
        end = end or _hard(sentence, limit)
        parts.append(sentence[:end].rstrip())
        sentence = sentence[end:].lstrip()
    return [*parts, sentence] if sentence else parts


def _cut(text: str, at: re.Pattern[str], least: int, most: int) -> int:
    """The last place within `most` characters where it may be split, not before `least`; 0 if there is none."""
    ends = [match.end() for match in at.finditer(text, 0, most + 1) if least <= match.end() <= most]
    return ends[-1] if ends else 0


def _hard(text: str, limit: int) -> int:
    """Split within a word, but not between a letter and its accents."""
    end = limit
    while end > 1 and (unicodedata.combining(text[end]) or text[end] in "\u200d\ufe0f"):
        end -= 1
    return end if end > 1 else limit


def _joined(first: str, parts: list[str], limit: int, glue: str) -> list[str]:
    """Join chunks that are too short, or cannot be spoken alone, to a neighbour."""
    chunks = [first]
    for part in parts:
        room = min(FIRST, limit) if len(chunks) == 1 else limit
        short = min(len(chunks[-1]), len(part)) < SCRAP or not (speakable(chunks[-1]) and speakable(part))
        if short and len(chunks[-1]) + len(glue) + len(part) <= room:
            chunks[-1] += glue + part
        else:
            chunks.append(part)
    return chunks
