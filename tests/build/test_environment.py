"""Environments that share a base: what each layer holds, and what may not go together."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import pytest

from fakes.python_index import served
from hearmeman_build.build import build_output
from hearmeman_build.downloads import batches, fetch_wheels
from hearmeman_build.errors import BuildError
from hearmeman_build.host import ROOT
from hearmeman_build.lock_environments import choose, combined, resolve
from hearmeman_build.plugins.environment import Environment, plan
from hearmeman_build.plugins.layer import Entry
from hearmeman_build.plugins.sdist import build_wheel
from hearmeman_build.prefetch import add_buildroot
from hearmeman_build.store import add_files
from support.toywheel import make_sdist, make_wheel

BASE = Environment("opt/env/base", is_base=True)
DELTA = Environment("opt/env/e", base="opt/env/base")
SITE = "lib/python3.11/site-packages"


def _text(entry: Entry) -> str:
    assert entry.open is not None
    return entry.open().read().decode()


def test_a_base_holds_packages_alone(tmp_path: Path) -> None:
    files = {
        "toy/__init__.py": "def main(): ...\n",
        "toy-1.0.data/scripts/raw": "#!python\n",
        "toy-1.0.dist-info/entry_points.txt": "[console_scripts]\ntoy = toy:main\n",
    }
    tree = plan(BASE, [make_wheel(tmp_path, "toy", files)])

    assert f"opt/env/base/{SITE}/toy/__init__.py" in tree
    assert not [path for path in tree if "/bin/" in path or path.endswith("pyvenv.cfg")]


def test_the_bases_commands_start_the_environments_python(tmp_path: Path) -> None:
    files = {
        "toy/__init__.py": "def main(): ...\n",
        "toy-1.0.data/scripts/raw": "#!python\n",
        "toy-1.0.dist-info/entry_points.txt": "[console_scripts]\ntoy = toy:main\n",
    }
    tree = plan(DELTA, [], [make_wheel(tmp_path, "toy", files)])

    assert _text(tree["opt/env/e/bin/toy"]).startswith("#!/opt/env/e/bin/python\n")
    assert _text(tree["opt/env/e/bin/raw"]).startswith("#!/opt/env/e/bin/python\n")
    assert "site.addsitedir('/opt/env/base/lib/python3.11/site-packages')" in _text(tree[f"opt/env/e/{SITE}/_base.pth"])
    assert f"opt/env/e/{SITE}/toy/__init__.py" not in tree


@pytest.mark.parametrize("above", ["part/__init__.py", "part/two.py"])
def test_a_package_in_both_base_and_environment_is_refused(tmp_path: Path, above: str) -> None:
    base = make_wheel(tmp_path, "one", {"part/__init__.py": "", "part/one.py": "1"})
    two = make_wheel(tmp_path, "two", {above: ""})
    with pytest.raises(BuildError, match="package part has parts in both the base .*: keep all of it in the base"):
        plan(DELTA, [two], [base])
    assert f"opt/env/e/{SITE}/_base.pth" in plan(DELTA, [], [base, two])


def test_a_namespace_may_lie_in_both(tmp_path: Path) -> None:
    base = make_wheel(tmp_path, "one", {"space/one/__init__.py": "", "tests/__init__.py": ""})
    over = make_wheel(tmp_path, "two", {"space/two/__init__.py": "", "tests/__init__.py": ""})
    assert f"opt/env/e/{SITE}/space/two/__init__.py" in plan(DELTA, [over], [base])


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_member_is_named(tmp_path: Path, method: int) -> None:
    text = "".join(map(str, range(900_000)))
    path = make_wheel(tmp_path, "toy", {"toy/data.bin": text, "toy/empty": ""}, method)
    tree = plan(Environment("opt/env/e"), [path])
    assert _text(tree[f"opt/env/e/{SITE}/toy/data.bin"]) == text
    assert _text(tree[f"opt/env/e/{SITE}/toy/empty"]) == ""

    content = bytearray(path.read_bytes())
    content[200_000] ^= 0x10
    (tmp_path / "bad").mkdir()
    bad = tmp_path / "bad" / path.name
    bad.write_bytes(content)
    with pytest.raises(BuildError, match=r"toy-1\.0-py3-none-any\.whl: toy/data\.bin (does not inflate|is not what)"):
        _text(plan(Environment("opt/env/e"), [bad])[f"opt/env/e/{SITE}/toy/data.bin"])


def test_a_package_without_a_wheel_is_locked_by_its_source() -> None:
    source = {"name": "toy-1.0.tar.gz", "hashes": {"sha256": "a"}, "size": 3}
    assert choose("toy", "1.0", [], source)["file"] == "toy-1.0.tar.gz"
    other = {"name": "toy-1.0-cp312-cp312-linux_x86_64.whl", "hashes": {"sha256": "b"}, "size": 3}
    with pytest.raises(BuildError, match="has no wheel for CPython 3.11"):
        choose("toy", "1.0", [other], source)


def test_a_file_has_the_name_by_which_the_index_knows_it() -> None:
    shown = {"name": "toypy-1.0-py3-none-any.whl", "url": "https://index.example/a/b/ToyPy-1.0-py3-none-any.whl"}
    assert (
        choose("toypy", "1.0", [{**shown, "hashes": {"sha256": "a"}, "size": 3}])["file"]
        == "ToyPy-1.0-py3-none-any.whl"
    )


def test_a_source_package_builds_the_same_wheel_twice() -> None:
    """In the sandbox, with the locked setuptools: docopt, which publishes no wheel."""
    locked = json.loads((ROOT / "nix/environments/lock.json").read_text())
    wanted = [*locked["build"], *(entry for entry in locked["xtts"] if entry["name"] == "docopt")]
    add_files(fetch_wheels(ROOT, wanted))
    add_buildroot(ROOT, json.loads((ROOT / "nix/userland/lock.json").read_text()))
    [wheel] = build_output("wheel-docopt").iterdir()
    build_output("wheel-docopt", "--rebuild")
    assert wheel.name == "docopt-0.6.2-py2.py3-none-any.whl"
    tree = plan(Environment("opt/env/e"), [wheel.parent])
    assert f"opt/env/e/{SITE}/docopt.py" in tree


def test_a_source_that_leaves_its_folder_is_refused(tmp_path: Path) -> None:
    source = make_sdist(tmp_path, "toy", {"../../evil": "x"})
    with pytest.raises(BuildError, match="leaves the folder"):
        build_wheel(source, [], tmp_path)


def test_environments_are_resolved_as_one_project() -> None:
    base = {
        "project": {"requires-python": "==3.11.*", "dependencies": ["torch==2.8.0"]},
        "tool": {"uv": {"package": False, "override-dependencies": ["a ; sys_platform == 'never'"]}},
    }
    members = {"one": {"project": {"dependencies": ["x"]}}, "two": {"project": {"dependencies": ["y<2"]}}}
    import tomllib

    project = tomllib.loads(combined(base, members))
    assert project["project"]["optional-dependencies"] == {"one": ["torch==2.8.0", "x"], "two": ["torch==2.8.0", "y<2"]}
    assert project["tool"]["uv"]["conflicts"] == [[{"extra": "one"}, {"extra": "two"}]]
    assert project["tool"]["uv"]["package"] is False


def test_a_locked_version_stays_where_it_still_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = [make_wheel(tmp_path, name, {}, version=version) for name in ("old", "new") for version in ("1.0", "2.0")]
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    with served(wheels) as index:
        monkeypatch.setenv("UV_DEFAULT_INDEX", index)

        # The one that every machine has, which need not be the image's.
        python = ">={}.{}".format(*sys.version_info)

        def versions(*requirements: str) -> dict[str, str]:
            project = f'[project]\nname = "p"\nversion = "0"\nrequires-python = "{python}"\ndependencies = {json.dumps(requirements)}\n'
            found = resolve(project, [], [{"name": "old", "version": "1.0"}, {"name": "gone", "version": "1.0"}])[""]
            return {entry["name"]: entry["version"] for entry in found}

        assert versions("old", "new") == {"old": "1.0", "new": "2.0"}
        assert versions("old>1", "new") == {"old": "2.0", "new": "2.0"}


def test_a_missing_python_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")
    with pytest.raises(BuildError, match="could not download one: install it, or run this on Debian 12"):
        resolve('[project]\nname = "p"\nversion = "0"\nrequires-python = "==3.5.*"\ndependencies = []\n', [])


def test_a_batch_holds_one_version_of_a_package() -> None:
    entries = [
        {"name": "a", "file": "a-1", "size": 10},
        {"name": "a", "file": "a-2", "size": 20},
        {"name": "b", "file": "b", "size": 399_999_980},
        {"name": "c", "file": "c", "size": 900_000_000},
    ]
    grouped = [[entry["file"] for entry in batch] for batch in batches(entries)]
    assert grouped == [["a-1", "b"], ["a-2"], ["c"]]
