"""`hearmeman worker`: boot this machine as a serverless worker."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from hearmeman.boot import command as boot


def add(parser: argparse.ArgumentParser) -> None:
    """Add boot's arguments: a worker is a pod that takes jobs."""
    boot.add(parser)
    parser.set_defaults(role="worker")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Boot; returns only with --plan or an error."""
    return boot.run(args, environ)
