"""Says what this machine lacks for building and pushing a tier's image, before anything is fetched."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from hearmeman_build import locks, sources
from hearmeman_build.build import tier_parts
from hearmeman_build.downloads import fetchers
from hearmeman_build.errors import BuildError
from hearmeman_build.host import ROOT, collect, free_bytes, in_nixpkgs_world, isolation, store_file
from hearmeman_build.prefetch import COPIES

_SECONDS = 10
_OLDEST = (2, 8)
_GITHUB = "https://github.com"
_FETCHERS = {
    "apt": "pinned packages are fetched with Debian's apt; on another system build with nixpkgs: `nix run .#doctor`",
    "pip": "run `./setup.sh demo`, which makes a .venv that has it",
}
"""What to do where one of them is missing."""


@dataclass(frozen=True)
class Finding:
    """One thing that a build needs."""

    what: str
    fine: bool
    found: str
    """What is there."""
    fix: str = ""
    """What to do; "" where nothing is wrong."""


@dataclass(frozen=True)
class Machine:
    """What was found on a machine; `findings` judges it."""

    commands: Mapping[str, bool]
    nix_version: str
    """"" where Nix is not installed."""
    config: Mapping[str, str]
    """Nix's own settings."""
    namespaces: bool
    """Whether a user namespace can be made, which the sandbox and the tests' container need."""
    free: int
    """Bytes where the store is."""
    needed: int
    """Bytes that a first build of the tier takes."""
    github: bool | None
    """Whether GitHub answers; None where nothing is wanted from it."""
    substituters: Mapping[str, bool]
    """Whether each binary cache answers."""
    fetchers: Mapping[str, bool]
    """Whether apt and pip are there, which fetch where nixpkgs does not; empty with nixpkgs."""


def findings(machine: Machine, nixpkgs_world: bool) -> list[Finding]:
    """Everything that was looked at, in the order in which it is needed."""
    version = tuple(map(int, re.findall(r"\d+", machine.nix_version)[:2]))
    found = [
        Finding(
            "nix",
            version >= _OLDEST,
            machine.nix_version or "not installed",
            "install Nix 2.8 or later: ./setup.sh demo on Debian, https://nixos.org/download elsewhere",
        )
    ]
    if nixpkgs_world:
        features = set(machine.config.get("experimental-features", "").split())
        found.append(
            Finding(
                "features",
                {"flakes", "nix-command"} <= features,
                " ".join(sorted(features)) or "none",
                "write `experimental-features = nix-command flakes` into ~/.config/nix/nix.conf",
            )
        )
    found += [
        Finding(
            "sandbox",
            machine.namespaces and (not nixpkgs_world or machine.config.get("sandbox") == "true"),
            "namespaces" if machine.namespaces else "no user namespaces",
            "set `sandbox = true` in nix.conf" if machine.namespaces else isolation(),
        ),
        Finding(
            "disk",
            machine.free >= machine.needed,
            f"{machine.free / 1e9:.1f} GB free, {machine.needed / 1e9:.1f} needed by a first build",
            f"free some space: `{collect()}` and `make clean` give back what earlier builds left",
        ),
    ]
    if machine.github is not None:
        found.append(
            Finding(
                "github",
                machine.github,
                "answers" if machine.github else "does not answer",
                "give ComfyUI and the nodes with HEARMEMAN_SOURCES=FOLDER, see docs/images.md",
            )
        )
    for address, answers in machine.substituters.items():
        found.append(
            Finding(
                f"cache {address}",
                answers,
                "answers" if answers else "does not answer",
                "Nix waits for it at each path: take it out of `substituters`, or pass --option substituters ''",
            )
        )
    found += [Finding(name, there, _installed(there), _FETCHERS[name]) for name, there in machine.fetchers.items()]
    for name, there in machine.commands.items():
        fix = f"install {name}: ./setup.sh test on Debian"
        found.append(Finding(name, there, _installed(there), fix))
    return [Finding(f.what, True, f.found) if f.fine else f for f in found]


def _installed(there: bool) -> str:
    return "installed" if there else "not installed"


def look(tier: str) -> Machine:
    """Look at this machine.

    Raises:
        BuildError: there is no such tier.
    """
    version = _said(["nix", "--version"]).rpartition(" ")[2]
    config = _config() if version else {}
    caches = config.get("substituters", "").split() if in_nixpkgs_world() else []
    parts = tier_parts(tier) if version else {"userland": [], "environments": [], "trees": {}}
    given = sources.folder()
    wanted = [name for name in parts["trees"].values() if given is None or not (given / name).is_dir()]
    return Machine(
        commands={name: shutil.which(name) is not None for name in ("git", "skopeo", "zstd", "bwrap")},
        nix_version=version,
        config=config,
        namespaces=_said(["unshare", "-Ur", "echo", "made"]) == "made",
        free=free_bytes(store_file("/nix/store")),
        needed=COPIES * locked_bytes(parts["userland"], parts["environments"]),
        github=_answers(_GITHUB) if wanted or in_nixpkgs_world() else None,
        substituters={
            address: _answers(f"{address.rstrip('/')}/nix-cache-info") for address in caches if "://" in address
        },
        fetchers={} if in_nixpkgs_world() else fetchers(),
    )


def locked_bytes(groups: Sequence[str], environments: Sequence[str]) -> int:
    """The size of every locked file of some userland groups and environments, each once."""
    userland, locked = locks.userland(ROOT), locks.environments(ROOT, environments)
    names = locks.packages(userland, groups)
    wheels = {entry["file"]: entry["size"] for name in environments for entry in locked[name]}
    total: int = sum(userland["packages"][name]["size"] for name in names) + sum(wheels.values())
    return total


def _said(command: Sequence[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""


def _config() -> dict[str, str]:
    """Nix's settings, as a person who types `nix` has them."""
    plain = _settings([])
    if plain:
        return plain
    # It takes the feature to say that it is off.
    return {**_settings(["--extra-experimental-features", "nix-command"]), "experimental-features": ""}


def _settings(flags: Sequence[str]) -> dict[str, str]:
    text = _said(["nix", *flags, "show-config"]) or _said(["nix", *flags, "config", "show"])
    return dict(line.split(" = ", 1) for line in text.splitlines() if " = " in line)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False


def doctor(tier: str, as_json: bool, say: Callable[[str], None] = print) -> None:
    """Print what is there and what is missing.

    Raises:
        BuildError: something is missing; the message counts it.
    """
    found = findings(look(tier), in_nixpkgs_world())
    if as_json:
        say(json.dumps([asdict(one) for one in found], indent=1))
    else:
        width = max(len(one.what) for one in found)
        for one in found:
            say(f"{'ok   ' if one.fine else 'LACKS'} {one.what:{width}}  {one.found}")
            if one.fix:
                say(f"      {'':{width}}  {one.fix}")
    missing = sum(not one.fine for one in found)
    if missing:
        raise BuildError(f"{missing} of {len(found)} things that a build of {tier} needs are missing on this machine")
