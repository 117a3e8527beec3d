"""`hearmeman sync cost`: what this pod has stored and sent, or an estimate of what one would, priced by prices.toml."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hearmeman.errors import HearmemanError
from hearmeman.settings import Settings
from hearmeman.sync.journal import Journal, journal_file
from hearmeman.terminal import count, pairs, size


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


class Pricer:
    """Prices what a journal knows for the sync's report, now and then: it reads all of the journal."""

    SECONDS = 60.0

    def __init__(self, journal: Journal) -> None:
        self._journal, self._prices = journal, read_prices()
        self._at = float("-inf")
        self._found: dict[str, float] = {}

    def look(self, now: float) -> dict[str, float]:
        """Give objects, bytes and dollars a month at clock `now`; what was given last where the journal cannot be read."""
        if now - self._at >= self.SECONDS:
            self._at = now
            with contextlib.suppress(sqlite3.Error):
                found = price(*self._journal.stored(), self._journal.usage(), self._prices)
                self._found = {
                    "objects": found.objects,
                    "stored_bytes": found.stored_bytes,
                    "storage_dollars_month": found.storage_dollars_month,
                    "requests_dollars_month": found.months[-1].dollars if found.months else 0.0,
                }
        return self._found


@dataclass(frozen=True)
class Estimate:
    """What a month costs with so much stored and so many uploads."""

    stored_gb: float
    """Gigabytes (10^9 bytes) that are stored the whole month."""
    uploads: float
    """Files uploaded in the month; each is one class A request, a file over 100 MiB one for every 50 MiB and two more."""
    storage_dollars: float
    """For what is stored, as if nothing were free."""
    uploads_dollars: float
    """For the uploads, as if nothing were free."""
    dollars: float
    """Both, less what each account has free."""


def estimate(stored_gb: float, uploads: float, prices: Mapping[str, Any]) -> Estimate:
    """Price a month; pure."""

    def dollars(gigabytes: float, requests: float) -> tuple[float, float]:
        return gigabytes * prices["storage_gb_month"], requests * prices["class_a_million"] / 1e6

    free = prices["free"]
    beyond = dollars(max(0.0, stored_gb - free["storage_gb_month"]), max(0.0, uploads - free["class_a"]))
    return Estimate(stored_gb, uploads, *dollars(stored_gb, uploads), sum(beyond))


def show_estimate(stored_gb: float, uploads: float, as_json: bool) -> int:
    """Print an estimate; no bucket is needed."""
    prices = read_prices()
    found = estimate(stored_gb, uploads, prices)
    if as_json:
        print(json.dumps({**asdict(found), "prices": prices}, indent=2))
        return 0
    rows = [
        ("stored", f"{stored_gb:,g} GB: ${found.storage_dollars:,.2f} a month"),
        ("uploads", f"{uploads:,.0f} a month: ${found.uploads_dollars:,.4f}"),
        ("to pay", f"${found.dollars:,.2f} a month, after what each account has free"),
        *_prices(prices),
    ]
    print("\n".join(pairs(rows)))
    return 0


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
            f"nothing is known about bucket {settings.r2_bucket}: {path} is missing: no sync has run here with "
            "this bucket"
        )
    journal = Journal(path, read_only=True)
    prices = read_prices()
    cost = price(*journal.stored(), journal.usage(), prices)
    journal.close()
    print(json.dumps({**asdict(cost), "prices": prices}, indent=2) if as_json else "\n".join(lines(cost, prices)))
    return 0


def lines(cost: Cost, prices: Mapping[str, Any]) -> list[str]:
    """Render the cost for a person."""
    stored = f"{count(cost.objects, 'object')}, {size(cost.stored_bytes)}: ${cost.storage_dollars_month:.4f} a month"
    rows = [("stored", stored)]
    rows += [
        (m.month, f"{size(m.sent_bytes)} sent, {m.class_a} class A and {m.class_b} class B requests: ${m.dollars:.4f}")
        for m in cost.months
    ]
    rows += [
        *_prices(prices),
        ("note", "This is what this pod's journal knows; other pods and tools may have sent more."),
    ]
    return pairs(rows)


def _prices(prices: Mapping[str, Any]) -> list[tuple[str, str]]:
    free = prices["free"]
    return [
        (
            "prices",
            f"${prices['storage_gb_month']} per GB and month, ${prices['class_a_million']:.2f} and "
            f"${prices['class_b_million']:.2f} per million class A and B requests, egress free",
        ),
        (
            "free",
            f"each account has {free['storage_gb_month']} GB, {free['class_a']:,} class A and {free['class_b']:,} "
            'class B requests a month free; only "to pay" takes that into account',
        ),
    ]
