"""`hearmeman check`: tries GPU, disk and network, and says what is unsound; boot runs it beside everything else."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path

from hearmeman.errors import UsageError
from hearmeman.image import IMAGE_FILE, read_image


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hearmeman check`."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--seconds", type=float, default=20.0, help="seconds that the GPU tests may take (%(default)g)")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write what was found, for `hearmeman status`")
    parser.add_argument("--image-file", type=Path, default=IMAGE_FILE, help="the image's image.json")
    parser.epilog = (
        "Exits with 1 if something is faulty. What cannot be checked here is reported, and is not a failure."
    )


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Look at everything, print and report it; 1 when something is unsound."""
    from hearmeman import terminal
    from hearmeman.log import log
    from hearmeman.settings import load
    from hearmeman.state_file import write_json
    from hearmeman.tune import check

    settings = load(environ)
    if args.report and args.report.exists() and not args.report.is_file():
        # It is put there by a rename, which would take the place of a device such as /dev/null.
        raise UsageError(f"--report {args.report} is not a file: name one, or give --json to print it")
    python = read_image(args.image_file).comfyui_python
    probe = [python, "-I", str(Path(__file__).with_name("gpu_probe.py"))]
    began = time.monotonic()
    found = check.all_of(
        (
            lambda: check.gpu(probe, args.seconds, environ),
            check.errors,
            check.read_xids,
            lambda: check.disk(Path(settings.models_path)),
            lambda: check.hub(settings.hf_endpoint),
        )
    )
    seconds = round(time.monotonic() - began, 1)
    listed = [dataclasses.asdict(finding) for finding in found]
    if args.report:
        write_json(args.report, {"at": time.time(), "seconds": seconds, "findings": listed}, durable=False)
        for finding in found:
            log(
                "machine.checked",
                part=finding.name,
                ok="unknown" if finding.ok is None else finding.ok,
                what=finding.what,
            )
        # It is a report: a pod with a slow disk works on.
        return 0
    if args.json:
        print(json.dumps({"seconds": seconds, "findings": listed}, indent=2))
    else:
        words = {True: "sound", False: "UNSOUND", None: "unknown"}
        print("\n".join(terminal.table((finding.name, words[finding.ok], finding.what) for finding in found)))
    return 1 if any(finding.ok is False and finding.name != "sage" for finding in found) else 0
