#!/usr/bin/env bash
# Frees some 25 GB of tools that no step uses, and lays the Nix store where most is free: some runners have a second disk.
set -euo pipefail

sudo rm -rf /usr/local/lib/android /usr/share/dotnet /opt/ghc /usr/local/.ghcup /opt/hostedtoolcache/CodeQL /usr/share/swift
sudo docker image prune --all --force >/dev/null
free() { df --output=avail --block-size=1 "$1" | tail -1; }
if mountpoint -q /mnt && [ "$(free /mnt)" -gt "$(free /)" ]; then
  sudo mkdir -p /mnt/nix /nix
  sudo mount --bind /mnt/nix /nix
fi
df -h / /mnt
if [ "$(free "$([ -d /nix ] && echo /nix || echo /)")" -lt 30000000000 ]; then
  echo "less than 30 GB are free for the Nix store: use a larger runner" >&2
  exit 1
fi
