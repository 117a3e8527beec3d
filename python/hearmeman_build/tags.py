"""The tag that an image is pushed under: a tier axis and a baked axis, `latest` for neither."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hearmeman_build.errors import BuildError

PLAIN_TIER = "consumer"
"""The tier that the bare tags mean."""

_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)


def tag(tier: str, baked: Sequence[str] = (), custom: str = "") -> str:
    """`latest`, `latest-prosumer`, `wan720p`, `wan720p-illustrious-prosumer`; `custom` wins.

    Raises:
        BuildError: no registry takes `custom`.
    """
    if custom:
        if not _TAG.fullmatch(custom):
            raise BuildError(
                f"{custom!r} is not a tag: use letters, digits, dots, hyphens and underscores, 128 at most, and begin "
                "with none of . and -"
            )
        return custom
    if tier == "smoke":
        return "-".join([tier, *baked])
    axis = [] if tier == PLAIN_TIER else [tier]
    return "-".join([*(baked or ["latest"]), *axis])
