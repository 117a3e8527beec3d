"""Which models the settings and a command ask for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from hearmeman.errors import HearmemanError, UsageError
from hearmeman.models.catalogue import Catalogue, Model
from hearmeman.settings import Settings

_MOST_NEAR = 3


class UnknownModelError(UsageError):
    """MODELS or the command names a model that the catalogue does not have."""


class UnknownVariableError(HearmemanError):
    """The catalogue makes a model depend on a variable that does not exist."""


def asked_for(catalogue: Catalogue, settings: Settings, names: Iterable[str] = ()) -> tuple[Model, ...]:
    """Tell which models the settings and `names` ask for, in the catalogue's order; addresses in MODELS are left out.

    Raises:
        UnknownModelError: a name is not in the catalogue.
        UnknownVariableError: the catalogue names a variable that does not exist.
    """
    names = list(names)
    known = {model.id for model in catalogue.models}
    _refuse_unknown(names, known, "")
    _refuse_unknown([name for name in listed(settings.models) if not is_address(name)], known, "; correct MODELS")
    wanted = {*names, *listed(settings.models)}
    values = {name.upper(): _words(value) for name, value in settings}
    for model in catalogue.models:
        for name in model.when:
            if name not in values:
                raise UnknownVariableError(
                    f"the catalogue's model {model.id} depends on {name}, which is not a "
                    f"variable{nearest(name, values)}:"
                    " correct it"
                )
    return tuple(model for model in catalogue.models if model.id in wanted or _switched_on(model, values))


def for_tier(models: Iterable[Model], settings: Settings, tier: str, names: Iterable[str] = ()) -> tuple[Model, ...]:
    """Leave out what a toggle asks for on a GPU tier it is not for; what is named stays."""
    named = {*names, *listed(settings.models)}
    return tuple(model for model in models if not model.tiers or tier in model.tiers or model.id in named)


def listed(text: str) -> list[str]:
    """Split a list that is separated by commas; blanks and empty words are dropped."""
    return [word for part in text.split(",") if (word := part.strip())]


def is_address(name: str) -> bool:
    """Tell whether a name in MODELS is a model's address rather than its id: ids have none of these characters."""
    return any(character in name for character in ":/@")


def nearest(name: str, known: Iterable[str]) -> str:
    """Suggest what may have been meant, as the end of a sentence; empty when nothing is near."""
    known = sorted(known)
    small = {one.lower(): one for one in known}
    near = [small[found] for found in difflib.get_close_matches(name.lower(), small, n=_MOST_NEAR)]
    near += [one for one in known if len(name) > 2 and name.lower() in one.lower() and one not in near]
    if not near:
        return ""
    *most, last = near[:_MOST_NEAR]
    return f" (did you mean {', '.join(most)}{' or ' if most else ''}{last}?)"


def _refuse_unknown(names: Iterable[str], known: set[str], fix: str) -> None:
    unknown = [f"{name!r}{nearest(name, known)}" for name in sorted(set(names) - known)]
    if unknown:
        raise UnknownModelError(
            f"the catalogue has no model {', '.join(unknown)}: `hearmeman models list` shows all {len(known)}{fix}"
        )


def _words(value: object) -> frozenset[str]:
    # A list matches each of its words.
    return frozenset(word.strip().lower() for word in str(value).split(","))


def _switched_on(model: Model, values: dict[str, frozenset[str]]) -> bool:
    return bool(model.when) and all(value.lower() in values[name] for name, value in model.when.items())
