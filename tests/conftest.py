"""What several tests share: the smoke images, built once; who runs beside whom; how long properties are tried."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import hypothesis
import pytest

from hearmeman_build.build import Image, build_image, prefetch_tier
from support.repository import ROOT

# A busy machine is slow and not wrong. A property fails today if it failed yesterday: the long search is `make soak`.
hypothesis.settings.register_profile("calm", deadline=None, derandomize=True)
hypothesis.settings.register_profile("soak", deadline=None, max_examples=5000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "calm"))


def pytest_configure() -> None:
    """Refuse a place that other users cannot read, such as /root: what pods run as users of its own is run so here too.

    A shell starts what runs in its background deaf to Ctrl-C, and what that starts is deaf too: tests press it.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    closed = [parent for parent in (ROOT, *ROOT.parents) if not parent.stat().st_mode & 0o001]
    if os.geteuid() == 0 and closed:
        raise pytest.UsageError(
            f"{closed[0]} is closed to other users, and the tests run processes as other users: put the checkout elsewhere, "
            "such as /srv, or run them as a plain user"
        )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where only tests that run alone are wanted, leave out the files that have none: importing all takes ten seconds."""
    if config.option.markexpr != "alone" or not collection_path.name.startswith("test_"):
        return None
    return "pytest.mark.alone" not in collection_path.read_text(encoding="utf-8") or None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests that share a server or a pod of their file on one worker, so that it is started once.

    All others go wherever a worker is free, the long ones first: no worker is to have one left when the others are done.
    """
    for item in items:
        if isinstance(item, pytest.Function) and "module" in _scopes(item):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
    items.sort(key=lambda item: not _is_long(item))


def _is_long(item: pytest.Item) -> bool:
    """Whether it works with an image, which it mostly boots or sends, or says itself that it is long."""
    fixtures = item.fixturenames if isinstance(item, pytest.Function) else ()
    return bool({"image", "jupyter_image"} & set(fixtures)) or item.get_closest_marker("long") is not None


def _scopes(item: pytest.Function) -> set[str]:
    fixtures = item._fixtureinfo.name2fixturedefs
    return {definition.scope for name in item.fixturenames for definition in fixtures.get(name, ())}


@pytest.fixture(scope="session")
def image() -> Image:
    """The smoke image, prefetched and built."""
    prefetch_tier("smoke")
    return build_image("smoke")


@pytest.fixture(scope="session")
def jupyter_image() -> Image:
    """The smoke image with JupyterLab; the two differ in one layer."""
    prefetch_tier("smoke-jupyter")
    return build_image("smoke-jupyter")


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name bytes by their number: what they hold may change from run to run, and all workers must name a test alike."""
    return f"{len(val)}-bytes" if isinstance(val, bytes) else None
