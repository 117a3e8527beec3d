#!/usr/bin/env bash
# Runs a command as root. The pod has users of its own: a plain user's command runs in a user namespace, where that user is
# root and can become others. These cannot enter a home that is closed to them, so the checkout is laid where they can.
set -euo pipefail

[ "$(id -u)" != 0 ] || exec "$@"
# shellcheck disable=SC2016 # The shell in the namespace is what expands it.
exec unshare --user --map-root-user --map-auto --mount bash -euc '
  case $PWD/ in
  /srv/*) ;;
  *)
    mount --rbind . /srv
    cd /srv
    ;;
  esac
  exec "$@"' bash "$@"
