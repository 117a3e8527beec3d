"""Each maintainer script of the userland is listed with what became of it, and one that nobody has read is refused."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import pytest

from hearmeman_build import locks, postinst, prefetch
from hearmeman_build.downloads import store_name
from hearmeman_build.errors import BuildError
from hearmeman_build.host import ROOT, store_file
from hearmeman_build.lock_userland import read_packages
from hearmeman_build.store import flat_path

GROUPS = sorted(read_packages((ROOT / "nix/userland/packages.txt").read_text()).keys() - {"buildroot"})


@pytest.fixture(scope="module")
def debs() -> dict[str, Path]:
    """Every package of the image, as the lock has it."""
    prefetch.prefetch(ROOT, GROUPS, [])
    lock = locks.userland(ROOT)
    packages = {name: lock["packages"][name] for name in locks.packages(lock, GROUPS)}
    return {name: store_file(flat_path(store_name(e["file"]), e["sha256"])) for name, e in packages.items()}


def test_every_script_is_listed_and_nothing_else(debs: dict[str, Path]) -> None:
    postinst.check(ROOT, debs)
    table = tomllib.loads((ROOT / postinst.TABLE).read_text())
    assert {name for name in table if not postinst.script(debs[name])} == set()
    assert [name for name, entry in table.items() if ("replayed" in entry) == ("left_out" in entry)] == []


def test_an_unread_and_a_changed_script_are_refused(debs: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / postinst.TABLE
    path.parent.mkdir(parents=True)
    shutil.copy(ROOT / postinst.TABLE, path)
    text = path.read_text()
    read = postinst.digest(postinst.script(debs["tzdata"]))
    path.write_text(text.replace(read, "0" * 16).replace('["sudo"]', '["other"]'))
    with pytest.raises(BuildError, match="what became of 2 maintainer scripts") as caught:
        postinst.check(tmp_path, debs)
    assert f'["tzdata"] has another script now: script = "{read}"' in str(caught.value)
    assert '["sudo"] is not there: script = ' in str(caught.value)
