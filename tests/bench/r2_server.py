"""The R2 of tests/fakes as a process of its own: says its variables on the first line, ends when its input does."""

from __future__ import annotations

import json
import sys

from fakes.r2 import R2

if __name__ == "__main__":
    with R2(latency=float(sys.argv[1]), keep=False) as r2:
        print(json.dumps(r2.environ()), flush=True)
        sys.stdin.read()
