#!/opt/env/runtime/bin/python -I
"""Kept for people who type the old path."""

import os
import sys

os.execv("/opt/env/runtime/bin/hearmeman", ["hearmeman", "upload", *sys.argv[1:]])
