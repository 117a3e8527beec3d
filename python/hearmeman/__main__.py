"""Lets `python -m hearmeman` be the command."""

import sys

from hearmeman.cli import main

if __name__ == "__main__":
    sys.exit(main())
