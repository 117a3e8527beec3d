"""A text is cut where a reader would pause, within the limit, and nothing of it is lost."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearmeman_voice import text

SENTENCE = "Dr. Smith paid 3.14 dollars at 5 p.m. to J. Doe, who left."


def joined(chunks: list[str]) -> str:
    return "".join("".join(chunks).split())


@given(st.text(max_size=2000), st.sampled_from([20, 71, 95, 250, 300]), st.sampled_from(["en", "zh-cn", "ja", "ar"]))
def test_nothing_is_lost_and_no_chunk_is_over_the_limit(words: str, limit: int, language: str) -> None:
    chunks = text.split(words, limit, language)
    assert joined(chunks) == joined([text.clean(words)])
    assert all(0 < len(chunk) <= limit for chunk in chunks)
    assert all(chunk == chunk.strip() for chunk in chunks)


def test_sentences_end_where_sentences_end() -> None:
    assert text.split(f"{SENTENCE} {SENTENCE}", 300) == [SENTENCE, SENTENCE]


@pytest.mark.parametrize(
    "words", ["word " * 600, "a clause of some words, " * 125, "x" * 3000, "A short sentence of words. " * 110]
)
def test_a_long_text_begins_as_soon_as_a_short_one(words: str) -> None:
    chunks = text.split(words, 300)
    assert len(chunks[0]) <= text.FIRST
    assert max(len(chunk) for chunk in chunks) <= 300


@pytest.mark.parametrize(("length", "parts"), [(text.FIRST, 1), (text.UNCUT, 1), (text.UNCUT + 1, 2)])
def test_a_first_sentence_that_is_hardly_too_long_stays_whole(length: int, parts: int) -> None:
    words = ("word " * 40)[: length - 1].replace(" w", ", w", 1)[: length - 1] + "."
    assert len(words) == length
    assert len(text.split(words, 300)) == parts


def test_a_sentence_without_an_end_is_cut_at_blanks_into_parts_of_like_size() -> None:
    chunks = text.split("word " * 600, 300)[1:]
    assert all(set(chunk.split()) == {"word"} for chunk in chunks)
    assert max(map(len, chunks)) - min(map(len, chunks)) < 30


def test_a_clause_is_a_better_place_than_a_blank() -> None:
    first, *_ = text.split(
        "He came to the old house by the river, and after that he went on and on without a rest until dusk.", 60
    )
    assert first.endswith("river,")


def test_short_scraps_are_joined() -> None:
    chunks = text.split("Oh. No. " + "This sentence is long enough to be spoken alone. " * 4 + "Yes.", 250)
    assert all(len(chunk) >= text.SCRAP for chunk in chunks)


@pytest.mark.parametrize(("language", "limit"), [("zh-cn", 82), ("ja", 71)])
def test_sentences_without_blanks_are_cut_at_their_own_ends(language: str, limit: int) -> None:
    chunks = text.split("今日はとても良い天気ですね。公園に行きましょう！" * 20, limit, language)
    assert all(chunk[-1] in "。！" for chunk in chunks)


def test_letters_keep_their_accents() -> None:
    zalgo = "q\u0300\u0301\u0302" * 100
    for before, after in itertools.pairwise(text.split(zalgo, 50)):
        assert after[0] == "q", (before, after)


@pytest.mark.parametrize("silent", ["", " \n", "🎉🎉", "…!?", "\x00\x07", "\ud800"])
def test_what_has_no_letter_and_no_digit_is_not_speakable(silent: str) -> None:
    assert not text.speakable(text.clean(silent))


def test_emoji_between_words_stay_with_a_chunk_that_can_be_spoken() -> None:
    assert all(
        text.speakable(chunk)
        for chunk in text.split("Well done, my friend! 🎉🎉 And now to the next thing on the list.", 250)
    )
