"""The host's command: `python -m hearmeman_build lock | prefetch | build | inspect | push | load | sbom | …`."""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
from pathlib import Path
from typing import Any

from hearmeman_build import (
    bake,
    doctor,
    inspect_image,
    lock_environments,
    lock_flake,
    lock_poetry,
    lock_userland,
    pin,
    repository,
    reproduce,
    sbom,
    tags,
)
from hearmeman_build import tuner_flags as flags
from hearmeman_build.build import build_image, prefetch_tier
from hearmeman_build.errors import BuildError
from hearmeman_build.host import ROOT, full_disk, in_nixpkgs_world, write_named
from hearmeman_build.push import load, push


class _Parser(argparse.ArgumentParser):
    """Shows the usage of the subcommand that was meant."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest


def parser() -> argparse.ArgumentParser:
    """Every subcommand and its arguments."""
    top = _Parser(prog="hearmeman_build", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "lock", help="write all locks anew from flake.nix, packages.txt and the environments' toml"
    )
    command.add_argument(
        "--upgrade", action="store_true", help="take the newest Python packages, not those locked before"
    )
    command = commands.add_parser("pin", help="move ComfyUI to another commit: flake.nix and flake.lock")
    command.add_argument("--commit", required=True, metavar="SHA", help="the commit, 40 hexadecimal digits")
    command.add_argument("--input", default="comfyui", help="the flake input to move (default: comfyui)")
    for name, text in (
        ("prefetch", "put what a tier's image is made of into the store"),
        ("build", "build a tier's image and print its layout and digest"),
        ("inspect", "show a tier's image: digest, layers and their sizes; or its difference from another"),
        ("push", "push a tier's image to a registry and record its digest in images.lock.json"),
        ("load", "load a tier's image into the local docker or podman"),
        ("sbom", "write a CycloneDX list of every package, wheel and commit in a tier's image"),
        ("reproduce", "build a tier's image in two empty stores and compare"),
        ("doctor", "say what this machine lacks for building and pushing a tier's image; fetches nothing"),
    ):
        command = commands.add_parser(name, help=text)
        # What leaves the machine is the image for GPU pods; what is only built may be small.
        usual = tags.PLAIN_TIER if name in ("push", "load", "doctor") else "smoke"
        command.add_argument("--tier", default=usual, help=f"a tier of nix/tiers.nix (default: {usual})")
        if name not in ("reproduce", "doctor"):
            command.add_argument(
                "--bake",
                action="append",
                default=[],
                metavar="NAME",
                help="models baked in: an entry of nix/variants.nix",
            )
        if name == "prefetch":
            command.add_argument("--models-only", action="store_true", help="only what --bake names")
        if name == "push":
            command.add_argument(
                "--to",
                default="",
                metavar="REGISTRY/NAME",
                help="where it goes, without a tag (default: HEARMEMAN_REPOSITORY, else ghcr.io/OWNER/NAME of the "
                "git remote)",
            )
            command.add_argument("--tag", default="", help="default: by tier and baked models, e.g. latest-prosumer")
            command.add_argument(
                "--move-tag", action="store_true", help="replace what --tag names, even if it is another image"
            )
            command.add_argument(
                "--compression",
                choices=["zstd", "gzip"],
                default="zstd",
                help="gzip for registries and hosts that take no zstd; another digest, the same image ID",
            )
            command.add_argument(
                "--no-sbom",
                action="store_true",
                help="do not attach the list of parts (SBOM), for a registry that refuses it",
            )
            command.add_argument("--plain-http", action="store_true", help="the registry speaks HTTP, e.g. on loopback")
        if name == "load":
            command.add_argument("--into", default="docker", help="docker, podman, or a skopeo transport")
            command.add_argument("--name", default="hearmeman", help="the image's name there (default: hearmeman)")
        if name == "doctor":
            command.add_argument("--json", action="store_true", help="as JSON")
        if name == "inspect":
            command.add_argument(
                "--against", default="", metavar="TIER", help="show what differs from this tier's image"
            )
            command.add_argument(
                "--contents", default="", metavar="LAYER", help="list the files of the layers with this description"
            )
            command.add_argument("--json", action="store_true", help="as JSON")
        if name == "sbom":
            command.add_argument("--output", type=Path, metavar="FILE", help="default: standard output")
    command = commands.add_parser(
        "flags", help="read ComfyUI's flags from its source, and check the tuner against them"
    )
    command.add_argument("source", type=Path, help="the folder of ComfyUI's source")
    command.add_argument("--revision", required=True, help="its commit")
    return top


def run(arguments: argparse.Namespace) -> None:
    """Carry one subcommand out."""
    match arguments.command:
        case "lock":
            lock_flake.lock(ROOT, print)
            lock_userland.lock(ROOT)
            lock_environments.lock(ROOT, arguments.upgrade)
            lock_poetry.lock(ROOT, arguments.upgrade)
        case "pin":
            pin.pin(ROOT, arguments.input, arguments.commit, print)
        case "prefetch":
            # With nixpkgs, Nix fetches the rest by itself.
            if not (arguments.models_only or in_nixpkgs_world()):
                prefetch_tier(arguments.tier)
            if arguments.bake:
                bake.bake(arguments.tier, arguments.bake)
        case "build":
            built = build_image(arguments.tier, arguments.bake)
            print(f"{built.layout}\n{built.digest}")
        case "inspect":
            built = build_image(arguments.tier, arguments.bake)
            if arguments.contents:
                for line in inspect_image.contents(built, arguments.contents):
                    print(line)
            elif arguments.against:
                print(inspect_image.difference(built, build_image(arguments.against), arguments.json))
            else:
                print(inspect_image.shown(built, arguments.json))
        case "push":
            tag = tags.tag(arguments.tier, arguments.bake, arguments.tag)
            there = repository.find(arguments.to, os.environ, ROOT)
            image = "-".join([arguments.tier, *arguments.bake])
            print(f"image-{image} to {there.reference}:{tag}, named by {there.source}", flush=True)
            pushed = push(
                arguments.tier,
                there.reference,
                arguments.tag,
                arguments.plain_http,
                print,
                arguments.bake,
                arguments.compression,
                arguments.move_tag,
                not arguments.no_sbom,
            )
            print(f"{pushed.reference}@{pushed.digest}")
        case "doctor":
            doctor.doctor(arguments.tier, arguments.json)
        case "load":
            print(load(arguments.tier, arguments.into, arguments.name, print, arguments.bake))
        case "sbom":
            text = sbom.document(ROOT, arguments.tier, arguments.bake)
            if arguments.output:
                try:
                    write_named(arguments.output, text)
                except OSError as error:
                    raise BuildError(f"--output {arguments.output} cannot be written: {error.strerror}") from error
            else:
                print(text)
        case "flags":
            to = ROOT / "python/hearmeman/tune/cli-flags.json"
            print(f"{to}: {flags.write_flags(arguments.source, arguments.revision, to)} flags")
        case _:
            reproduce.reproduce(arguments.tier)


def main() -> int:
    """Run one subcommand; errors are one message."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What takes minutes is followed in a file or a pipe too.
        sys.stdout.reconfigure(line_buffering=True)
    try:
        run(parser().parse_args())
        sys.stdout.flush()
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            # The reader went away (`| head`); Python would complain again when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return 141
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        print(f"error: {full_disk() if full else error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    sys.exit(main())
