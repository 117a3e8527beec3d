"""The whole userland, booted: apt and dpkg, logins by su, sudo and ssh, a compiler, media tools, certificates."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hearmeman_build import flake, prefetch
from hearmeman_build.build import build_output
from hearmeman_build.host import ROOT, nix
from hearmeman_build.store import invalid_paths
from support.ports import free_port

LAYERS = ("layer-userland-core", "layer-userland-speech-media-build-shell")
GROUPS = ("core", "speech", "media", "build", "shell")


@pytest.fixture(scope="module")
def peak() -> int:
    """Resident bytes of the plugin and its zstd together at most, while the large layer is built; again if it is there."""
    prefetch.prefetch(ROOT, GROUPS, [])
    layer = LAYERS[-1]
    path = nix("eval", "--raw", f"{flake.reference()}#packages.x86_64-linux.{layer}.outPath", *flake.offline_inputs())
    again = [] if invalid_paths([path]) else ["--rebuild"]
    program = "import sys; from hearmeman_build.build import build_output; build_output(*sys.argv[1:])"
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "python"), "HOME": str(Path.home())}
    environment["HEARMEMAN_ROOT"] = str(ROOT)
    found = 0
    with subprocess.Popen(["python3", "-c", program, layer, *again], env=environment) as process:
        while process.poll() is None:
            found = max(found, _builders_bytes("hearmeman_build.plugins.userland"))
            time.sleep(0.1)
    assert process.returncode == 0
    return found


@pytest.fixture(scope="module")
def root(peak: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The two userland layers of the full images, unpacked where they may be written to."""
    folder = tmp_path_factory.mktemp("userland")
    for layer in LAYERS:
        blob = build_output(layer) / "layer.tar.zst"
        subprocess.run(["tar", "-C", str(folder), "--zstd", "-xp", "--numeric-owner", "-f", str(blob)], check=True)
    folder.chmod(0o755)
    yield folder
    subprocess.run(["chmod", "-R", "u+w", str(folder)], check=True)
    shutil.rmtree(folder)


def inside(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the tree, as a container would."""
    bwrap = ["bwrap", "--bind", str(root), "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/run"]
    bwrap += ["--unshare-pid", "--die-with-parent", "--clearenv", "--setenv", "HOME", "/root", "--chdir", "/root"]
    bwrap += ["--setenv", "PATH", "/usr/sbin:/usr/bin:/sbin:/bin", "--setenv", "LC_ALL", "C.UTF-8", "--"]
    return subprocess.run([*bwrap, *command], capture_output=True, text=True, timeout=120, check=False)


def shell(root: Path, script: str) -> str:
    """Run a script and give what it printed; a failure ends the test with what it said."""
    done = inside(root, "bash", "-euo", "pipefail", "-c", script)
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_dpkg_lists_every_package_of_the_lock(root: Path) -> None:
    lock = json.loads((ROOT / "nix/userland/lock.json").read_text())
    wanted = {f"{name} {lock['packages'][name]['version']}" for group in GROUPS for name in lock["groups"][group]}
    there = shell(root, "dpkg-query -W -f '${Package} ${Version}\\n'; dpkg --audit; apt-get check >&2")
    assert set(there.splitlines()) == wanted


def test_dpkg_finds_its_files_as_they_were_shipped(root: Path) -> None:
    # `dpkg -V` prints a line for each file that is not as its package shipped it.
    said = shell(root, "dpkg -V coreutils git openssh-server ffmpeg libc6 gcc-12 | cat")
    assert [line for line in said.splitlines() if " c /etc/" not in line] == []


def test_apt_installs_and_removes_a_package(root: Path) -> None:
    script = """
    mkdir -p /tmp/toy/DEBIAN /tmp/toy/usr/share/toy; echo hello > /tmp/toy/usr/share/toy/file
    printf 'Package: toy\\nVersion: 1\\nArchitecture: all\\nMaintainer: a <a@b.c>\\nDescription: toy\\nDepends: libc6\\n' > /tmp/toy/DEBIAN/control
    dpkg-deb -b /tmp/toy /tmp/toy.deb >/dev/null
    apt-get install -qq -y --no-install-recommends /tmp/toy.deb >&2; cat /usr/share/toy/file
    apt-get purge -qq -y toy >&2; test ! -e /usr/share/toy/file
    """
    assert shell(root, script) == "hello\n"


def test_su_and_sudo_change_the_user(root: Path) -> None:
    assert shell(root, "su -s /bin/sh nobody -c 'id -un'") == "nobody\n"
    assert shell(root, "sudo -n -u nobody id -un") == "nobody\n"
    assert shell(root, "su - root -c 'sudo -n id -un'") == "root\n"


def test_ssh_logs_in_by_key_and_not_by_password(root: Path) -> None:
    port = free_port()
    script = f"""
    mkdir -p /run/sshd /root/.ssh; chmod 700 /root/.ssh
    rm -f /tmp/host /tmp/user; ssh-keygen -q -t ed25519 -N '' -f /tmp/host; ssh-keygen -q -t ed25519 -N '' -f /tmp/user
    cp /tmp/user.pub /root/.ssh/authorized_keys; chmod 600 /root/.ssh/authorized_keys
    /usr/sbin/sshd -h /tmp/host -p {port} -o ListenAddress=127.0.0.1 -o PasswordAuthentication=no
    options="-p {port} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes -q"
    for try in $(seq 600); do ssh $options -i /tmp/user root@127.0.0.1 true && break; sleep 0.1; done
    ssh $options -i /tmp/user root@127.0.0.1 id -un
    if ssh $options -o IdentitiesOnly=yes -i /tmp/host root@127.0.0.1 id -un; then exit 1; fi
    """
    assert shell(root, script) == "root\n"


def test_a_compiler_media_tools_and_a_voice_work(root: Path) -> None:
    script = """
    printf '#include <iostream>\\nint main(){std::cout<<"compiled ";}' > /tmp/a.cc; c++ /tmp/a.cc -o /tmp/a; /tmp/a
    printf 'int main(){return 0;}' > /tmp/b.c; cc /tmp/b.c -o /tmp/b; /tmp/b
    ffmpeg -loglevel error -f lavfi -i testsrc=duration=1:size=64x64 -y /tmp/a.mp4; test -s /tmp/a.mp4
    espeak-ng -w /tmp/a.wav hello; test -s /tmp/a.wav
    flite -voice rms -t hello -o /tmp/b.wav; test -s /tmp/b.wav
    git init -q /tmp/repo; git -C /tmp/repo lfs version | cut -d/ -f1
    """
    assert shell(root, script) == "compiled git-lfs\n"


def test_python_finds_authorities_and_the_linker_its_libraries(root: Path) -> None:
    program = (
        "import ssl, ctypes.util; print(len(ssl.create_default_context().get_ca_certs()) > 100,"
        " ctypes.util.find_library('GL'), ctypes.util.find_library('EGL'), ctypes.util.find_library('sndfile'))"
    )
    assert shell(root, f'python3 -c "{program}"') == "True libGL.so.1 libEGL.so.1 libsndfile.so.1\n"


def test_the_builder_needs_little_memory(peak: int) -> None:
    print(f"peak {peak / 2**20:.0f} MiB")
    assert 20e6 < peak < 400e6


def _builders_bytes(module: str) -> int:
    """Resident bytes of the build plugins that run `module` now."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if module.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                total += int((folder / "statm").read_text().split()[1]) * 4096
        except OSError:
            continue
    return total
