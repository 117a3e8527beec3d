#!/bin/sh
# Kept for people who type the old path.
exec /opt/env/runtime/bin/hearmeman sync "$@"
