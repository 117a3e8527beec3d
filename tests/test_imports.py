"""Who imports whom: the floors of pyproject.toml hold, no import leads back to where it began, plugins stand alone."""

from __future__ import annotations

import graphlib
import subprocess
import sys

import grimp
import pytest

from hearmeman_build.host import ROOT


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    # What only a type checker imports leads nowhere when the program runs.
    return grimp.build_graph(
        "hearmeman", "hearmeman_build", "hearmeman_voice", exclude_type_checking_imports=True, cache_dir=None
    )


def test_every_module_stands_on_its_floor() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": "python"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_import_leads_back_to_where_it_began(graph: grimp.ImportGraph) -> None:
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    # Raises CycleError, whose message names the circle.
    graphlib.TopologicalSorter(imports).prepare()


def test_a_plugin_knows_plugins_and_errors_alone(graph: grimp.ImportGraph) -> None:
    """In the sandbox nothing else of the package is there."""
    assert graph.find_upstream_modules("hearmeman_build.plugins", as_package=True) == {"hearmeman_build.errors"}
