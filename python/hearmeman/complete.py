"""`hearmeman complete`: what bash offers when Tab is pressed; `complete -C` calls it with the line that was typed."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from hearmeman.image import RUN_DIR

_WITH_PROCESS = ("restart", "logs")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that bash gives."""
    parser.add_argument("--run-dir", type=Path, default=RUN_DIR, help="boot's run folder")
    # Also words that begin with dashes.
    parser.add_argument(
        "typed", nargs=argparse.REMAINDER, help="command, word and the word before it, as bash gives them"
    )


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Print the words that fit, one a line."""
    typed = args.typed[1] if len(args.typed) > 1 else ""
    line = environ.get("COMP_LINE", f"hearmeman {typed}")[: int(environ.get("COMP_POINT", "4096"))]
    words = line.split()[1:]
    if line[-1:] not in ("", " ") and words:
        words.pop()
    for word in candidates(words, args.run_dir):
        if word.startswith(typed):
            print(word)
    return 0


def candidates(words: list[str], run_dir: Path) -> list[str]:
    """Give what may follow `words`."""
    from hearmeman.cli import COMMANDS, HIDDEN, parser_for

    chosen = [word for word in words if not word.startswith("-")]
    if not chosen:
        return [name for name in COMMANDS if name not in HIDDEN]
    if chosen[0] not in COMMANDS:
        return []
    parser = _below(parser_for(words), chosen[0])
    actions: list[str] = []
    for word in chosen[1:]:
        parser = _below(parser, word) or parser if parser else None
    if parser is None:
        return []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            actions += list(action.choices)
        elif not action.option_strings and action.choices:
            actions += [str(choice) for choice in action.choices]
    options = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    processes = sorted(path.stem for path in (run_dir / "keep").glob("*.json")) if chosen[0] in _WITH_PROCESS else []
    return [*processes, *actions, *options]


def _below(parser: argparse.ArgumentParser | None, word: str) -> argparse.ArgumentParser | None:
    for action in parser._actions if parser else ():
        if isinstance(action, argparse._SubParsersAction) and word in action.choices:
            found: argparse.ArgumentParser = action.choices[word]
            return found
    return None
