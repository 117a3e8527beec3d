"""`hearmeman sshd`: makes host keys where there are none, then becomes sshd (used by boot)."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from hearmeman.errors import HearmemanError
from hearmeman.log import log

_CONFIG = """# Written by hearmeman; keys only.
Port {port}
HostKey {key}
AuthorizedKeysFile {keys}
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PidFile none
AcceptEnv LANG LC_*
X11Forwarding no
PrintMotd no
ClientAliveInterval 60
# What is copied into ComfyUI's folders is ComfyUI's to change, by the group that those folders pass on.
Subsystem sftp internal-sftp -u 0002
"""


class SshError(HearmemanError):
    """sshd cannot be started."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hearmeman sshd`."""
    parser.add_argument("--run-dir", type=Path, required=True, help="boot's run folder")
    parser.add_argument("--keys-dir", type=Path, required=True, help="folder on the volume that keeps the host key")
    parser.add_argument("--port", type=int, default=22, help="port to listen on (%(default)s)")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Become sshd.

    Raises:
        SshError: sshd or ssh-keygen is missing, or the host key cannot be written.
    """
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if sshd is None:
        raise SshError("this image carries no sshd: use an image with openssh-server")
    key = host_key(args.keys_dir)
    config = args.run_dir / "ssh" / "sshd_config"
    keys = args.run_dir / "ssh" / "authorized_keys"
    (args.run_dir / "lastlog").touch(0o644)
    config.write_text(_CONFIG.format(port=args.port, key=key, keys=keys), encoding="utf-8")
    os.execve(sshd, [sshd, "-D", "-e", "-f", str(config)], {"PATH": environ.get("PATH", "")})
    raise AssertionError("exec came back")


def host_key(folder: Path) -> Path:
    """Give this pod's host key, made on the first start; it stays on the volume, so that clients know the pod again.

    Raises:
        SshError: it cannot be made.
    """
    key = folder / "ssh_host_ed25519_key"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not key.exists():
            beside = folder / f".{key.name}.{os.getpid()}"
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "hearmeman", "-f", str(beside)]
            subprocess.run(command, check=True, capture_output=True, text=True)
            Path(f"{beside}.pub").replace(f"{key}.pub")
            beside.replace(key)
            log("sshd.key_made", made=key)
        if os.geteuid() == 0:
            # Older pods gave it to another user; where there is no right to take it back, sshd can read it as it is.
            for path in (folder, key):
                if path.stat().st_uid != 0:
                    with contextlib.suppress(PermissionError):
                        os.chown(path, 0, 0)
    except (OSError, subprocess.CalledProcessError) as error:
        why = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else str(error.strerror)
        # ssh-keygen says it in words alone.
        is_full = any(os.strerror(number) in why for number in (errno.ENOSPC, errno.EDQUOT))
        fix = "free some space" if is_full else "set STATE_DIR to a folder that root can write"
        raise SshError(f"the SSH host key {key} cannot be created: {why}: {fix}, or unset PUBLIC_KEY") from error
    return key
