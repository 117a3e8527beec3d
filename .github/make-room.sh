#!/usr/bin/env bash
# Frees some 25 GB of tools that no step uses, and lays the Nix store on the runner's larger disk.
set -euo pipefail

sudo rm -rf /usr/local/lib/android /usr/share/dotnet /opt/ghc /usr/local/.ghcup /opt/hostedtoolcache/CodeQL /usr/share/swift
sudo docker image prune --all --force >/dev/null
sudo mkdir -p /mnt/nix /nix
sudo mount --bind /mnt/nix /nix
df -h / /mnt
