"""Wheels: which fit, where their files go, and what a wrong one says."""

from __future__ import annotations

from pathlib import Path

import pytest

from hearmeman_build.errors import BuildError
from hearmeman_build.lock_environments import choose, rank
from hearmeman_build.plugins.environment import Environment, plan
from hearmeman_build.plugins.wheel import check_platform, parse
from support.toywheel import make_wheel


def test_files_commands_and_record(tmp_path: Path) -> None:
    files = {
        "toy/__init__.py": "def main(): ...\n",
        "toy-1.0.data/scripts/toy-raw": "#!python\nprint(1)\n",
        "toy-1.0.dist-info/entry_points.txt": "[console_scripts]\ntoy = toy:main\n",
    }
    tree = plan(Environment("opt/env/e"), [make_wheel(tmp_path, "toy", files)])
    site = "opt/env/e/lib/python3.11/site-packages"

    assert f"{site}/toy/__pycache__/__init__.cpython-311.pyc" in tree
    raw = tree["opt/env/e/bin/toy-raw"]
    assert raw.open is not None and raw.open().read().startswith(b"#!/opt/env/e/bin/python\n")
    assert tree["opt/env/e/bin/toy"].mode == 0o755
    record = tree[f"{site}/toy-1.0.dist-info/RECORD"]
    assert record.open is not None and b"../../../bin/toy," in record.open().read()


def test_two_wheels_with_one_file_are_refused(tmp_path: Path) -> None:
    one = make_wheel(tmp_path, "one", {"same.py": "1"})
    two = make_wheel(tmp_path, "two", {"same.py": "2"})
    with pytest.raises(BuildError, match=r"same\.py is in both one-1\.0.* and two-1\.0"):
        plan(Environment("opt/env/e"), [one, two])


@pytest.mark.parametrize(
    "file",
    ["a-1-cp312-cp312-linux_x86_64.whl", "a-1-py3-none-win_amd64.whl", "a-1-cp311-cp311-musllinux_1_2_x86_64.whl"],
)
def test_a_wheel_for_another_platform_is_named(file: str) -> None:
    with pytest.raises(BuildError, match=f"{file} is for another platform"):
        check_platform(parse(file))
    assert rank(file) is None


def test_the_newest_platform_that_loads_wins() -> None:
    wheels = [
        {"name": f"a-1-cp311-cp311-{tag}.whl", "hashes": {"sha256": tag}, "size": 1}
        for tag in ("manylinux_2_17_x86_64", "manylinux_2_28_x86_64", "manylinux_2_39_x86_64")
    ]
    assert choose("a", "1", wheels)["sha256"] == "manylinux_2_28_x86_64"
    with pytest.raises(BuildError, match="has no wheel for CPython 3.11"):
        choose("a", "1", wheels[2:])


def test_a_file_that_is_no_zip_is_named(tmp_path: Path) -> None:
    path = tmp_path / "toy-1.0-py3-none-any.whl"
    path.write_bytes(b"not a zip")
    with pytest.raises(BuildError, match="bad zip"):
        plan(Environment("opt/env/e"), [path])
