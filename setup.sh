#!/usr/bin/env bash
# Installs what this machine lacks for `make demo` and `make test`, and says what and why.
set -euo pipefail

cd "$(dirname "$0")"
requirements=$1 # a lock in tests/, e.g. demo or test
more=${2:-}     # "bench" adds what the benches compare with, "acceptance" what it tries the image in, "page" a browser

declare -A why=(
  [nix]="nix-bin: builds the image"
  [bwrap]="bubblewrap: boots the image without a container engine"
  [zstd]="zstd: unpacks layers"
  [setpriv]="util-linux: ends helper servers together with the demo"
  [skopeo]="skopeo: an independent reader of the image, and what pushes it"
  [ssh]="openssh-client: logs in to the pod"
  [git]="git: custom nodes are checkouts"
  [curl]="curl: runs the specification's examples of the voice APIs"
  [openssl]="openssl: certificates for servers of the tests"
  [docker-registry]="docker-registry: a real registry on loopback"
  [oci-image-tool]="oci-image-tool: an independent validator of the image"
  [aria2c]="aria2: the bench compares the model fetch with it"
  [wget]="wget: the bench compares the model fetch with it"
  [ffmpeg]="ffmpeg: joins shots and takes their frames"
  [flac]="flac: decodes the stand-in's sound"
  [espeak-ng]="espeak-ng: a voice of the image"
  [flite]="flite: a voice that the shipped ones are compared with"
  [dockerd]="docker.io: an engine that loads and runs the image"
  [docker-compose]="docker-compose: starts compose.yaml"
  [debootstrap]="debootstrap: makes fresh Debian machines"
  [newuidmap]="uidmap: lets a plain user's tests run as the pod's users"
  [chromium]="chromium: the page is tested in it"
)
needed=(nix bwrap zstd setpriv)
[ "$requirements" = test ] && needed+=(skopeo docker-registry oci-image-tool curl openssl ffmpeg flac flite espeak-ng ssh git)
[ "$requirements" = test ] && [ "$(id -u)" != 0 ] && needed+=(newuidmap)
[ "$more" = bench ] && needed+=(aria2c wget)
[ "$more" = acceptance ] && needed+=(dockerd docker-compose debootstrap)
[ "$more" = acceptance ] || [ "$more" = page ] && needed+=(chromium)

packages=()
for command in "${needed[@]}"; do
  if ! command -v "$command" >/dev/null; then
    echo "installing ${why[$command]}"
    packages+=("${why[$command]%%:*}")
  fi
done
if ! /usr/bin/python3 -c 'import ensurepip' 2>/dev/null; then
  echo "installing python3-venv: an environment for the tools"
  packages+=(python3-venv)
fi
if [ ${#packages[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ]; then sudo=(); else sudo=(sudo); fi
  if ! command -v "${sudo[@]:-true}" >/dev/null; then
    echo "There is no sudo here; as root: apt-get install --no-install-recommends ${packages[*]}" >&2
    exit 1
  fi
  "${sudo[@]}" apt-get update -qq
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${packages[@]}" >/dev/null
fi

if [ "$requirements" = test ] && [ "$(id -u)" != 0 ] && ! unshare --user --map-root-user --map-auto true 2>/dev/null; then
  echo "The tests run processes as several users, and $(id -un) has no subordinate user ids. Add some:" >&2
  echo "  sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $(id -un)" >&2
  exit 1
fi

install_lock() {
  local stamp lock=tests/$1.lock
  stamp=.venv/$1.$(sha256sum "$lock" | cut -c1-16)
  [ ! -e "$stamp" ] || return 0
  echo "installing $lock into .venv"
  [ -x .venv/bin/python ] || /usr/bin/python3 -m venv .venv
  pip=(.venv/bin/python -m pip install -qq --disable-pip-version-check --require-hashes -r)
  # uv, where the lock has it, needs half of pip's time. It does not read pip's own settings: then pip does it all.
  uv=$(sed -n '/^uv==/,/[^\\]$/p' tests/test.lock)
  if [ "$1" = demo ] || ! "${pip[@]}" /dev/stdin <<<"$uv" ||
    ! VIRTUAL_ENV=.venv .venv/bin/uv pip install -q --compile-bytecode --require-hashes -r "$lock"; then
    "${pip[@]}" "$lock"
  fi
  touch "$stamp"
}
install_lock "$requirements"
if [ "$more" = acceptance ] || [ "$more" = page ]; then install_lock acceptance; fi
