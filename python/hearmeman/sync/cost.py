"""`hearmeman sync cost`: what this pod has stored and sent, priced by prices.toml."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hearmeman.errors import HearmemanError
from hearmeman.settings import Settings
from hearmeman.sync.journal import Journal, journal_file


class NoJournalError(HearmemanError):
    """Nothing is known about this bucket here."""


@dataclass(frozen=True)
class Month:
    """One month's requests."""

    month: str
    """Year and month, UTC."""
    sent_bytes: int
    """Bytes of the files that were sent."""
    class_a: int
    """Requests that write or list."""
    class_b: int
    """Requests that read."""
    dollars: float
    """What the requests cost, before what is free."""


@dataclass(frozen=True)
class Cost:
    """What is stored, and what was sent."""

    objects: int
    """Objects that this pod knows in the bucket."""
    stored_bytes: int
    """Their bytes."""
    storage_dollars_month: float
    """What they cost each month, before what is free."""
    months: tuple[Month, ...]
    """Requests by month."""


def price(objects: int, stored: int, usage: Mapping[str, Mapping[str, int]], prices: Mapping[str, Any]) -> Cost:
    """Price what is stored and sent; pure."""
    months = []
    for month, counts in usage.items():
        a, b = (sum(counts.get(name, 0) for name in prices["classes"][kind]) for kind in ("a", "b"))
        dollars = (a * prices["class_a_million"] + b * prices["class_b_million"]) / 1e6
        months.append(Month(month, counts.get("bytes", 0), a, b, dollars))
    return Cost(objects, stored, stored / 1e9 * prices["storage_gb_month"], tuple(months))


def read_prices() -> dict[str, Any]:
    """Read prices.toml."""
    return tomllib.loads(Path(__file__).with_name("prices.toml").read_text(encoding="utf-8"))


def show(settings: Settings, as_json: bool) -> int:
    """Print the cost.

    Raises:
        NoJournalError: no sync has run here with this bucket.
    """
    path = journal_file(Path(settings.state_path), settings.r2_endpoint, settings.r2_bucket)
    if not path.exists():
        raise NoJournalError(
            f"nothing is known of bucket {settings.r2_bucket}: {path} is missing: no sync has run here with this bucket"
        )
    journal = Journal(path, read_only=True)
    prices = read_prices()
    cost = price(*journal.stored(), journal.usage(), prices)
    journal.close()
    print(json.dumps({**asdict(cost), "prices": prices}, indent=2) if as_json else "\n".join(lines(cost, prices)))
    return 0


def lines(cost: Cost, prices: Mapping[str, Any]) -> list[str]:
    """Render the cost for a person."""
    free = prices["free"]
    shown = [
        f"stored   {cost.objects} objects, {cost.stored_bytes / 1e9:.2f} GB: ${cost.storage_dollars_month:.4f} a month"
    ]
    shown += [
        f"{m.month}  {m.sent_bytes / 1e9:.2f} GB sent, {m.class_a} class A and {m.class_b} class B requests: ${m.dollars:.4f}"
        for m in cost.months
    ]
    shown.append(
        f"prices   ${prices['storage_gb_month']} per GB and month, ${prices['class_a_million']:.2f} and "
        f"${prices['class_b_million']:.2f} per million class A and B requests, egress free"
    )
    shown.append(
        f"free     each account has {free['storage_gb_month']} GB, {free['class_a']:,} class A and {free['class_b']:,} "
        "class B requests a month free; the sums above do not count that"
    )
    return [*shown, "This is what this pod's journal knows; other pods and tools may have sent more."]
