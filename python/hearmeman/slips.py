"""A command line's parser that names what is close to a slip, and shows the usage of the command that was meant."""

from __future__ import annotations

import argparse
import difflib
from typing import Any


class Parser(argparse.ArgumentParser):
    """argparse's, with better words for an unknown option and an unknown command."""

    deepest: argparse.ArgumentParser | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        Parser.deepest = self  # The parsers of subcommands are called after their parents'.
        return super().parse_known_args(args, namespace)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            parser = Parser.deepest or self
            options = [option for action in parser._actions for option in action.option_strings]
            near = difflib.get_close_matches(rest[0].partition("=")[0], options, n=1)
            parser.error(f"unrecognized arguments: {' '.join(rest)}" + (f": did you mean {near[0]}?" if near else ""))
        return found

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            near = difflib.get_close_matches(str(value), choices, n=1)
            what = "there is no command" if isinstance(action, argparse._SubParsersAction) else "it cannot be"
            hint = f": did you mean {near[0]}?" if near else f": choose from {', '.join(choices)}"
            raise argparse.ArgumentError(None if what.startswith("there") else action, f"{what} {value!r}{hint}")
