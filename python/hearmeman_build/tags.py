"""The tag that an image is pushed under: a tier axis and a baked axis, `latest` for neither."""

from __future__ import annotations

from collections.abc import Sequence

PLAIN_TIER = "consumer"
"""The tier that the bare tags mean."""


def tag(tier: str, baked: Sequence[str] = (), custom: str = "") -> str:
    """`latest`, `latest-prosumer`, `wan720p`, `wan720p-illustrious-prosumer`; `custom` wins."""
    if custom:
        return custom
    if tier == "smoke":
        return "-".join([tier, *baked])
    axis = [] if tier == PLAIN_TIER else [tier]
    return "-".join([*(baked or ["latest"]), *axis])
