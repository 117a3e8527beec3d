"""What the outputs' bucket holds and costs a month, by listing it with the keys of this machine's environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NEEDED = ("R2_ENDPOINT", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY")
_NAMES = (*NEEDED, "R2_BUCKET")


@dataclass(frozen=True)
class Stored:
    """One bucket."""

    bucket: str
    """Its name."""
    objects: int
    """Objects in it, whoever put them there."""
    bytes: int
    """Their bytes."""
    per_month: float
    """Dollars a month, before what each account has free."""


def is_known(environ: Mapping[str, str]) -> bool:
    """Tell whether this machine has the bucket's address and keys."""
    return all(environ.get(name) for name in NEEDED)


def stored(environ: Mapping[str, str]) -> tuple[Stored | None, str]:
    """List the whole bucket, one request for a thousand objects: (what it holds, why that is not known).

    Raises:
        SettingsError: a variable R2_… is wrong.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    from hearmeman.settings import load
    from hearmeman.sync.client import Requests, make_client
    from hearmeman.sync.cost import read_prices
    from hearmeman.sync.failures import classify

    settings = load({name: environ[name] for name in _NAMES if environ.get(name)})
    client = make_client(settings, 2, Requests(), attempts=4)
    objects = size = 0
    try:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=settings.r2_bucket):
            found = page.get("Contents", [])
            objects += len(found)
            size += sum(entry["Size"] for entry in found)
    except (BotoCoreError, ClientError) as error:
        return None, classify(error, settings.r2_endpoint, settings.r2_bucket).sentence
    finally:
        client.close()
    price: float = read_prices()["storage_gb_month"]
    return Stored(settings.r2_bucket, objects, size, size / 1e9 * price), ""
