"""The host's command: `python -m hearmeman_build lock | prefetch | build | inspect | push | reproduce | flags`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from hearmeman_build import flags, lock_environments, lock_userland, reproduce
from hearmeman_build.build import build_image, prefetch_tier
from hearmeman_build.errors import BuildError
from hearmeman_build.host import ROOT
from hearmeman_build.push import inspect_image, push


def main() -> int:
    """Run one subcommand."""
    parser = argparse.ArgumentParser(prog="hearmeman_build", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("lock", help="solve packages.txt and the environments' toml again and write both locks")
    for name, text in (
        ("prefetch", "put what a tier's image is made of into the store"),
        ("build", "build a tier's image and print its layout"),
        ("inspect", "show a tier's image: digest, configuration, layers and their sizes"),
        ("push", "push a tier's image to a registry and record its digest in images.lock.json"),
        ("reproduce", "build a tier's image in two empty stores and compare"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--tier", default="smoke", help="a tier of nix/tiers.nix (default: smoke)")
        if name == "push":
            command.add_argument("--to", required=True, metavar="REGISTRY/NAME", help="where it goes, without a tag")
            command.add_argument("--tag", default="", help="default: the tier's name")
            command.add_argument("--plain-http", action="store_true", help="the registry speaks HTTP, e.g. on loopback")
        if name == "inspect":
            command.add_argument("--json", action="store_true", help="as JSON")
    command = commands.add_parser(
        "flags", help="read ComfyUI's flags from its source, and check the tuner against them"
    )
    command.add_argument("source", type=Path, help="the folder of ComfyUI's source")
    command.add_argument("--revision", required=True, help="its commit")
    arguments = parser.parse_args()
    try:
        if arguments.command == "lock":
            lock_userland.lock(ROOT)
            lock_environments.lock(ROOT)
        elif arguments.command == "prefetch":
            prefetch_tier(arguments.tier)
        elif arguments.command == "build":
            built = build_image(arguments.tier)
            print(f"{built.layout}\n{built.digest}")
        elif arguments.command == "inspect":
            print(inspect_image(build_image(arguments.tier), arguments.json))
        elif arguments.command == "push":
            pushed = push(arguments.tier, arguments.to, arguments.tag, arguments.plain_http)
            print(f"{pushed.reference}@{pushed.digest}")
        elif arguments.command == "flags":
            to = ROOT / "python/hearmeman/tune/cli-flags.json"
            print(f"{to}: {flags.write_flags(arguments.source, arguments.revision, to)} flags")
        else:
            reproduce.reproduce(arguments.tier)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    sys.exit(main())
