"""A plain user on a machine with an empty /nix, in a checkout without .git at an odd path: all that root can do."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hearmeman_build.build import Image
from hearmeman_build.inspect_image import layers
from support.plain_user import PlainUser, plain_user
from support.registry import Registry


@pytest.fixture(scope="module")
def user(image: Image) -> Iterator[PlainUser]:
    """The user; the image comes first, so that its parts need not be downloaded again."""
    with plain_user() as made:
        # What a run may leave behind, and Nix cannot copy.
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(made.checkout / ".work/socket"))
        # The two layers that take a minute; it builds the others, and the image.
        made.give(*(blob_of(image, name).parent for name in ("userland core", "environment runtime")))
        yield made


def blob_of(image: Image, name: str) -> Path:
    """Where the blob of the layer that is described by `name` lies in the store."""
    [layer] = [layer for layer in layers(image) if name in layer.made_by]
    return (image.layout / "blobs/sha256" / layer.digest.partition(":")[2]).resolve()


def test_the_demo_and_a_push_work_and_give_the_digest_that_root_gets(image: Image, user: PlainUser) -> None:
    demo = user.run("tests/demo.py", "--silent")
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert image.digest in demo.stdout
    assert (user.home / ".local/share/hearmeman/store/nix/store").is_dir()

    shown = user.run("-m", "hearmeman_build", "inspect", "--tier", "smoke", "--json")
    assert shown.returncode == 0, shown.stderr
    assert all(layer["unpacked"] > layer["size"] for layer in json.loads(shown.stdout)["layers"])
    with Registry() as registry:
        pushed = user.run(
            "-m", "hearmeman_build", "push", "--tier", "smoke", "--to", f"{registry.address}/own", "--plain-http"
        )
        assert pushed.returncode == 0, pushed.stderr
        assert pushed.stdout.strip().endswith(f"{registry.address}/own@{image.digest}")
    [entry] = json.loads((user.checkout / "images.lock.json").read_text())
    assert entry["digest"] == image.digest


def test_it_is_built_again_with_the_same_bytes(user: PlainUser) -> None:
    script = "from hearmeman_build.build import build_output; build_output('layer-comfyui-standin', '--rebuild')"
    done = user.run("-c", script)
    assert done.returncode == 0, done.stderr
