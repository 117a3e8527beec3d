"""Every `throw` of nix/: what is wrong, and how to fix it. FLAKE stands for the flake's folder."""

from __future__ import annotations

import pytest

from hearmeman_build import flake
from hearmeman_build.errors import BuildError
from hearmeman_build.host import nix

_FETCH = "(import FLAKE/nix/fetch.nix { pkgs = { }; })"
_MEMBERS = "{ comfyui = [ ]; xtts = [ ]; chatterbox = [ ]; }"
_ENVIRONMENTS = f"(import FLAKE/nix/environments.nix {{ fetch = {{ }}; plugin = x: x; lock = {_MEMBERS}; }})"
_LOCK = '{ snapshot = ""; groups.core = [ "gone" ]; packages = { }; }'
_USERLAND = f"(import FLAKE/nix/userland.nix {{ fetch.deb = snapshot: entry: entry; plugin = x: x; lock = {_LOCK}; }})"
_MODELS = "(import FLAKE/nix/models.nix { pkgs = { }; layer = x: x; })"


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        (f'{_FETCH}.wheel {{ file = "toy-1.0.zip"; }}', "toy-1.0.zip .* is not a wheel's name: run `make lock`"),
        (
            f'{_FETCH}.sdist {{ file = "toy-1.0.zip"; }}',
            "toy-1.0.zip .* is neither a wheel nor a .tar.gz: run `make lock`",
        ),
        (f'{_ENVIRONMENTS}.layers [ "nope" ]', "no environment nope in .*: write nix/environments/nope.toml"),
        (f'{_USERLAND}.layers [ [ "core" ] ]', "package gone is in a group but not among the packages of"),
        (f'{_USERLAND}.layers [ [ "nope" ] ]', "no group nope in .*: add it to packages.txt, then `make lock`"),
        (
            f'{_MODELS}.files FLAKE/tests/smoke/catalogue.toml [ "nope" ]',
            "no model nope in .*: it has smoke",
        ),
    ],
)
def test_a_throw_says_what_and_what_to_do(expression: str, why: str) -> None:
    with pytest.raises(BuildError, match=why):
        here = expression.replace("FLAKE", str(flake.folder()))
        nix("eval", "--impure", "--json", "--expr", f"builtins.deepSeq ({here}) 1")
