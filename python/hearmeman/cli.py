"""The `hearmeman` command: finds the subcommand, loads only that one, and turns errors into exit codes."""

from __future__ import annotations

import argparse
import importlib
import io
import json
import os
import sys
import textwrap
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hearmeman import __version__, overview, redact, slips, terminal
from hearmeman.errors import HearmemanError
from hearmeman.state_file import read_json

COMMANDS: dict[str, tuple[str, str]] = {
    "boot": ("hearmeman.boot.command", "plan the pod's processes and run them"),
    "status": ("hearmeman.status.command", "what runs, what was fetched, what was uploaded"),
    "logs": ("hearmeman.status.logs_command", "what the pod's processes wrote, merged by time"),
    "env": ("hearmeman.settings.command", "every variable, its value and where that comes from"),
    "tune": ("hearmeman.tune.command", "tier, memory mode and ComfyUI arguments for this machine"),
    "check": ("hearmeman.tune.check_command", "test GPU, disk and network, and say what is faulty"),
    "models": ("hearmeman.models.command", "list, plan, fetch and verify models"),
    "sync": ("hearmeman.sync.command", "upload outputs to the bucket as they appear"),
    "upload": ("hearmeman.sync.upload_command", "upload files to the bucket once"),
    "workspace": ("hearmeman.workspace.command", "save workflows, settings, inputs and added nodes; bring them back"),
    "workflows": ("hearmeman.workflows.command", "list and run workflows"),
    "run": ("hearmeman.research.command", "run a research program that the image may not include"),
    "worker": ("hearmeman.worker.command", "boot as a worker of RunPod Serverless"),
    "voices": ("hearmeman.voices.command", "list, add and remove the voices of the voice APIs"),
    "restart": ("hearmeman.status.restart", "restart a process of the pod"),
    "nodes": ("hearmeman.overlay.nodes", "update the custom nodes on the volume"),
    "overlay": ("hearmeman.overlay.command", "the Python packages added to ComfyUI on the volume"),
    "as-comfyui": ("hearmeman.overlay.as_comfyui", "run a command as ComfyUI: its user, environment and packages"),
    "owners": ("hearmeman.boot.owners_command", "give ComfyUI the files that root or an older pod left in its folders"),
    "keep": ("hearmeman.boot.keep", "keep one process running (used by boot)"),
    "door": ("hearmeman.door.command", "the status page and the gate's doorman (used by boot)"),
    "idle": ("hearmeman.idle.command", "end a pod that nobody uses (used by boot)"),
    "sshd": ("hearmeman.boot.sshd", "make host keys and become sshd (used by boot)"),
    "complete": ("hearmeman.complete", "what bash offers when Tab is pressed (used by bash)"),
}
"""Subcommand -> its module and one line of help; a module has `add(parser)` and `run(args, environ)`."""

HIDDEN = frozenset({"complete"})
"""Commands that nobody types."""

_WITHOUT_IMAGE = {"complete", "as-comfyui", "boot", "keep", "door", "overlay", "sshd", "worker"}
_PROCESS = {
    "models": "models",
    "sync": "sync",
    "upload": "sync",
    "workspace": "sync",
    "nodes": "comfyui",
    "workflows": "comfyui",
    "run": "comfyui",
}
"""Command -> the process of the pod whose environment it works with; a shell in the pod has no secret of its own."""
_RUN_AS = {
    "check": "FETCH",
    "models": "FETCH",
    "sync": "SYNC",
    "upload": "SYNC",
    "workspace": "WORKSPACE",
    "nodes": "COMFYUI",
    "overlay": "COMFYUI",
    "run": "COMFYUI",
}
"""Command -> the user of the pod that it becomes when root types it: it works where ComfyUI can write."""


class _Subcommands(argparse._SubParsersAction):  # type: ignore[type-arg]
    """Shows a subcommand's line in the list of commands in its own help too."""

    def add_parser(self, name: str, **more: Any) -> Any:
        return super().add_parser(name, **{"description": more.get("help"), **more})


class Parser(slips.Parser):
    """The help is ours, and every command takes --no-color."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.formatter_class = argparse.RawDescriptionHelpFormatter
        self.register("action", "parsers", _Subcommands)
        hint = "no colours, as with the variable NO_COLOR"
        self.add_argument("--no-color", action="store_true", default=argparse.SUPPRESS, help=hint)

    def format_help(self) -> str:
        own, command = (self.description, self.epilog), self.prog.partition(" ")[2]
        if not command:
            return overview.overview(_summaries(), terminal.width())
        columns = min(terminal.width(), 100)
        described, told = (textwrap.fill(text, columns) if text else "" for text in own)
        self.description = described or None
        self.epilog = "\n\n".join(filter(None, (told, overview.epilog(command, columns))))
        try:
            return super().format_help()
        finally:
            self.description, self.epilog = own


def _summaries() -> dict[str, str]:
    return {name: summary for name, (_, summary) in COMMANDS.items() if name not in HIDDEN}


def parser_for(argv: Sequence[str]) -> argparse.ArgumentParser:
    """Make the parser; only the subcommand that `argv` names is imported."""
    parser = Parser(prog="hearmeman", description="Runs a ComfyUI pod, and shows what it is doing.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"hearmeman {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    chosen = next((word for word in argv if not word.startswith("-")), None)
    for name, (module_name, summary) in COMMANDS.items():
        sub = subparsers.add_parser(name, help=summary, allow_abbrev=False)
        if name == chosen:
            module = importlib.import_module(module_name)
            module.add(sub)
            sub.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run the command and give its exit code: the command's own, an error's, 130 after Ctrl-C, 141 after a closed pipe."""
    words = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file's name may hold bytes that are no text; naming it must not end the command.
        sys.stdout.reconfigure(errors="backslashreplace")
    given = os.environ if environ is None else environ
    with redact.guarded_streams():
        redact.learn(given)
        return _run(words, given)


def _run(words: Sequence[str], environ: Mapping[str, str]) -> int:
    as_json = False
    forced = bool(environ.get("FORCE_COLOR")) or None
    terminal.set_colors(False if environ.get("NO_COLOR") else forced)
    try:
        if not words:
            print(overview.overview(_summaries(), terminal.width()))
            return 0
        args = parser_for(words).parse_args(words)
        if getattr(args, "no_color", False):
            terminal.set_colors(False)
        as_json = bool(getattr(args, "json", False))
        given = _environ(args.command, environ)
        if args.command in _RUN_AS and os.geteuid() == 0:
            _become(args.command, words, given)
        code: int = args.run(args, given)
        sys.stdout.flush()
        return code
    except HearmemanError as error:
        print(f"hearmeman: {error}", file=sys.stderr)
        # Who asked for a document is given one; one that was begun is not followed by another.
        if as_json and redact.is_untouched(sys.stdout):
            print(json.dumps(error.facts(), indent=2))
        return error.exit_code
    except KeyboardInterrupt:
        print(f"\nhearmeman: {overview.stopped(words)}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader went away (`| head`); Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except Exception as error:
        traceback.print_exc()
        print(f"hearmeman: this is a bug in hearmeman ({type(error).__name__}): please report it", file=sys.stderr)
        return 1


def _environ(command: str, environ: Mapping[str, str]) -> dict[str, str]:
    given = {key: value for key, value in environ.items() if value != ""}
    if command in _WITHOUT_IMAGE:
        return given
    from hearmeman.image import IMAGE_FILE, RUN_DIR, read_image

    defaults = read_image(IMAGE_FILE).env if IMAGE_FILE.exists() else {}
    booted = environment_of(RUN_DIR / "env" / f"{_PROCESS[command]}.json") if command in _PROCESS else {}
    redact.learn(booted)
    return {**defaults, **booted, **given}


def _become(command: str, words: Sequence[str], environ: Mapping[str, str]) -> None:
    """Go on as the command's own user, where the pod has one."""
    from hearmeman import users
    from hearmeman.image import RUN_DIR

    if users.is_separate(RUN_DIR):
        user: users.User = getattr(users, _RUN_AS[command])
        users.become(user, [sys.executable, "-P", "-m", "hearmeman", *words], environ)


def environment_of(file: Path) -> dict[str, str]:
    """Read the whole environment that boot wrote for a process, so that its commands work from any shell.

    Only root and that process can read it; for anybody else, and outside a pod, there is nothing.
    """
    return {name: value for name, value in read_json(file).items() if value != ""}
