"""What registries do not store, known before gigabytes are sent."""

from __future__ import annotations

from hearmeman_build.errors import BuildError

LARGEST_LAYER = {"ghcr.io": 10 * 10**9}
"""Registry -> bytes of a layer that it still stores."""


def check_layer(to: str, what: str, size: int) -> None:
    """Refuse a layer that the registry of `to` would refuse.

    Raises:
        BuildError: names the layer and both sizes.
    """
    registry = to.partition("/")[0]
    most = LARGEST_LAYER.get(registry)
    if most is not None and size > most:
        raise BuildError(
            f"{registry} does not store layers over {most / 1e9:.0f} GB, {what} has {size / 1e9:.1f} GB: push "
            "to another "
            "registry, or leave it out and let the pod fetch it"
        )
