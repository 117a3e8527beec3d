"""`hearmeman run infcam`: a film remade along another camera path, with its authors' own code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from hearmeman.errors import HearmemanError, UsageError
from hearmeman.log import log
from hearmeman.research import infcam
from hearmeman.research.checkout import Code, is_there, obtain
from hearmeman.workflows import pictures

CODE = Code("https://github.com/emjay73/InfCam", "8436c3405692629c863e6240656970c3c48df395")
NOTICE = (
    "InfCam's code has no licence: its authors keep all rights, and what you may do with it and with what it "
    "makes is between "
    "you and them. So the image does not carry it. It is cloned from {source} at {commit} onto your volume, and "
    "run there as "
    "ComfyUI's user. UniDepth, which --lens measure uses, is CC BY-NC 4.0."
)


class ModelsMissingError(HearmemanError):
    """InfCam's models are not on the disk."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hearmeman run`."""
    which = parser.add_subparsers(dest="program", required=True)
    one = which.add_parser("infcam", help="remake a film along another camera path (28 GB of GPU memory)")
    one.add_argument("--video", type=Path, required=True, metavar="FILE", help="the film; its first frames are used")
    moves = ", ".join(infcam.CAMERAS)
    one.add_argument("--camera", choices=infcam.CAMERAS, required=True, metavar="MOVE", help=f"one of {moves}")
    one.add_argument("--prompt", default="A scene of a film.", help="what it shows; a few sentences help")
    one.add_argument("--out", type=Path, metavar="DIR", help="folder of the result (infcam in ComfyUI's outputs)")
    one.add_argument("--frames", type=int, default=81, metavar="N", help="frames, 4n+1, 81 at most (%(default)s)")
    one.add_argument("--steps", type=int, default=20, metavar="N", help="sampling steps (%(default)s)")
    one.add_argument("--seed", type=int, default=0, metavar="N", help="seed (%(default)s)")
    one.add_argument(
        "--zoom", type=float, default=1.0, metavar="X", help="with --lens measure: zoom factor (%(default)s)"
    )
    one.add_argument(
        "--lens", choices=("24mm", "measure"), default="24mm", help="measure lets UniDepth estimate it (%(default)s)"
    )
    one.add_argument("--yes", action="store_true", help="agree to cloning the code")
    one.add_argument("--source", default=CODE.source, metavar="URL", help="where the code is cloned from")
    one.add_argument("--commit", default=CODE.commit, help=argparse.SUPPRESS)
    one.add_argument("--python", metavar="FILE", help="a Python with ComfyUI's packages (ComfyUI's own)")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Check everything, clone if need be, run it; returns the exit code.

    Raises:
        HearmemanError: one of its leaves, with what happened and what to do.
    """
    from hearmeman.settings import load

    settings = load(environ)
    job = infcam.Job(
        video=args.video.resolve(),
        camera=args.camera,
        prompt=args.prompt,
        frames=args.frames,
        steps=args.steps,
        seed=args.seed,
        lens=args.lens,
        zoom=args.zoom,
    )
    if not args.video.is_file():
        raise UsageError(f"--video {args.video}: there is no such file")
    infcam.check(job, pictures.count(args.video))
    models = Path(settings.models_path) / "infcam"
    lacking = [name for name in infcam.FILES if not (models / name).exists()]
    if lacking:
        raise ModelsMissingError(f"{models} lacks {', '.join(lacking)}: `hearmeman models fetch infcam` fetches it")
    home, code = Path(settings.comfyui_dir) / "infcam", Code(args.source, args.commit)
    if not is_there(home, code):
        _agree(args.yes, code)
    folder = obtain(home, code, environ)
    out = args.out or Path(settings.output_path) / "infcam"
    made = infcam.execute(job, folder, home, models, out, args.python, environ)
    log("infcam.done", file=made)
    print(made)
    return 0


def _agree(given: bool, code: Code) -> None:
    text = NOTICE.format(source=code.source, commit=code.commit[:12])
    print(text, file=sys.stderr)
    if given:
        return
    if not sys.stdin.isatty():
        raise UsageError("nothing was cloned: give --yes if you agree")
    print("Clone it? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was cloned")
