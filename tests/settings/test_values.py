"""Values as people write them: values.tsv holds each spelling and what becomes of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from hearmeman.settings import ALIASES, NAMES, SECRETS, Settings, SettingsError, load
from hearmeman.settings.values import cleaned, key_problem, takes

TABLE = Path(__file__).with_name("values.tsv")


def spellings() -> Iterator[tuple[str, str, str]]:
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            name, typed, read = line.split("\t")
            for escape, character in (("\\t", "\t"), ("\\r", "\r"), ("\\n", "\n"), ("\\\\", "\\")):
                typed = typed.replace(escape, character)
            yield name, typed, read


def test_the_table_is_as_long_as_people_are_inventive() -> None:
    assert len(list(spellings())) >= 250
    assert len({NAMES[ALIASES.get(name, name)] for name, _, _ in spellings()}) >= 25


@pytest.mark.parametrize(("name", "typed", "read"), list(spellings()))
def test_a_value_is_read_as_it_is_meant_or_refused_in_words_of_ours(name: str, typed: str, read: str) -> None:
    field = NAMES[ALIASES.get(name, name)]
    if not read.startswith("!"):
        value = getattr(load({name: typed}), field)
        assert str(value.get_secret_value() if isinstance(value, SecretStr) else value) == read
        return
    with pytest.raises(SettingsError) as refused:
        load({name: typed})
    text = str(refused.value)
    assert read[1:] in text
    assert name in text
    for raw in ("Input should", "String should", "pattern", "validation", "regex", "^", "pydantic"):
        assert raw not in text.replace(repr(cleaned(typed)), "")
    if ALIASES.get(name, name) in SECRETS:
        assert cleaned(typed) not in text


def test_every_variable_says_what_it_takes() -> None:
    for name, field in Settings.model_fields.items():
        assert takes(field), name
        assert "(?" not in takes(field)
    assert not any("pattern" in repr(field.metadata) for field in Settings.model_fields.values())


_ED = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGvMTvBrQcAwkNzBdSqrVfLoHsTBeSDvVDjLfmZQmrJK me@laptop"


def test_a_whole_key_has_no_problem() -> None:
    assert key_problem(_ED) == ""
    assert key_problem(f'from="10.0.0.1",no-pty {_ED}') == ""


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (_ED.split()[1], "is not an SSH public key"),
        (_ED[:60], "is cut off"),
        (" ".join(_ED.split()[:2])[:-1], "is cut off"),
        (_ED.replace("AAAAC3Nz", "AAAAC3N"), "is cut off"),
        (_ED.replace("ssh-ed25519 ", "ssh-rsa "), "holds a key of another kind"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "PRIVATE"),
        ("ssh-ed25519", "is not an SSH public key"),
        ("me@laptop", "is not an SSH public key"),
    ],
)
def test_a_line_that_is_no_whole_key_is_named(line: str, why: str) -> None:
    assert why in key_problem(line)
    settings = load({"PUBLIC_KEY": f"{_ED}\n{line}"})
    assert settings.authorized_keys == (_ED,)
    assert len(settings.key_problems) == 1
    assert settings.key_problems[0].startswith("line 2 of PUBLIC_KEY ")
    assert why in settings.key_problems[0]


def test_two_keys_on_one_line_are_named() -> None:
    settings = load({"PUBLIC_KEY": f"{_ED} {_ED}"})
    assert settings.authorized_keys == (f"{_ED} {_ED}",)
    assert "line 1 of PUBLIC_KEY contains two keys" in settings.key_problems[0]
    assert load({"PUBLIC_KEY": f'"{_ED}\\n{_ED}"'}).authorized_keys == (_ED, _ED)
