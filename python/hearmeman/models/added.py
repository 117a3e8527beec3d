"""Which models were added to a volume by address: kept where ComfyUI's code cannot write.

Else a node could have the fetch bring it, with the user's tokens, any private file.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hearmeman.state_file import read_json, write_json


class Added:
    """The note of one volume; `folder` is the fetch's own."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "added.json"

    def read(self) -> tuple[str, ...]:
        """Give the addresses."""
        found = read_json(self.path).get("addresses")
        return tuple(str(one) for one in found) if isinstance(found, list) else ()

    def write(self, addresses: Iterable[str]) -> None:
        """Note addresses in place of those that were noted before.

        Raises:
            OSError: it cannot be written.
        """
        write_json(self.path, {"addresses": sorted(set(addresses))})
