"""What the packages' maintainer scripts would have done, as changes to the merged tree."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from hearmeman_build.errors import BuildError
from hearmeman_build.layer import Entry, dir_entry, file_entry, link_entry

Tree = dict[str, Entry]

USERS = {
    "hearmeman-door": 990,
    "hearmeman-sync": 991,
    "hearmeman-fetch": 992,
}
"""System users for the processes that hold secrets: name -> uid and gid."""

_SHELL_LINE = b"# What boot made of the pod's settings, without secrets.\n[ -r /run/hearmeman/shell.env ] && . /run/hearmeman/shell.env\n"
"""For every interactive shell; boot writes the file."""

_ALTERNATIVES = {
    "usr/bin/awk": ("usr/bin/gawk", "usr/bin/mawk"),
    "usr/bin/nawk": ("usr/bin/gawk", "usr/bin/mawk"),
    "usr/bin/which": ("usr/bin/which.debianutils",),
    "usr/bin/pager": ("usr/bin/less", "usr/bin/more"),
    "usr/bin/editor": ("usr/bin/nano", "usr/bin/vim.tiny"),
}
"""Name -> candidates, best first."""

_SSH_GROUP = 101

_CREATED = {
    "mnt": 0o755, "srv": 0o755, "opt": 0o755, "media": 0o755, "proc": 0o755, "sys": 0o755, "dev": 0o755,
    "run": 0o755, "run/lock": 0o1777, "tmp": 0o1777, "var/tmp": 0o1777, "root": 0o700, "workspace": 0o755,
    "etc/opt": 0o755, "var/opt": 0o755, "var/log": 0o755,
    "usr/local": 0o755, "usr/local/bin": 0o755, "usr/local/lib": 0o755, "usr/local/sbin": 0o755,
    "usr/local/share": 0o755, "usr/local/etc": 0o755, "usr/local/include": 0o755,
}  # fmt: skip

_PAM = {
    "account": ("account [success=1 new_authtok_reqd=done default=ignore] pam_unix.so", "", "account"),
    "auth": ("auth [success=1 default=ignore] pam_unix.so nullok", "", "auth"),
    "password": ("password [success=1 default=ignore] pam_unix.so obscure yescrypt", "", "password"),
    "session": ("session [default=1] pam_permit.so", "session required pam_unix.so", "session"),
    "session-noninteractive": (
        "session [default=1] pam_permit.so",
        "session required pam_unix.so",
        "session_nonint",
    ),
}
"""common-NAME -> primary line, additional line, the template's placeholder."""


def content(tree: Tree, path: str) -> bytes:
    """A file's bytes.

    Raises:
        BuildError: no such file in the tree; a package that should ship it is missing from packages.txt.
    """
    entry = tree.get(path)
    if entry is None or entry.open is None:
        raise BuildError(f"/{path} is not in the userland: the package that ships it is missing from packages.txt")
    return entry.open().read()


def apply(tree: Tree) -> Tree:
    """The tree as it is after installation; the given one is not changed."""
    tree = dict(tree)
    for path, mode in _CREATED.items():
        tree[path] = dir_entry(path, mode)
    tree["var/run"], tree["var/lock"] = link_entry("var/run", "/run"), link_entry("var/lock", "/run/lock")
    _base_files(tree)
    _accounts(tree)
    _pam(tree)
    _certificates(tree)
    _ssh(tree)
    for name, candidates in _ALTERNATIVES.items():
        _alternative(tree, name, candidates)
    if "usr/bin/python3.11" in tree:
        _put_link(tree, "usr/bin/python3", "python3.11")
        _put_link(tree, "usr/bin/python", "python3")
    return tree


def _put(tree: Tree, path: str, data: bytes, mode: int = 0o644, gid: int = 0) -> None:
    tree[path] = replace(file_entry(path, data, mode), gid=gid)


def _put_link(tree: Tree, path: str, target: str) -> None:
    tree[path] = link_entry(path, target)


def _base_files(tree: Tree) -> None:
    for source, target in (
        ("dot.profile", "root/.profile"),
        ("dot.bashrc", "root/.bashrc"),
        ("profile", "etc/profile"),
    ):
        _put(tree, target, content(tree, f"usr/share/base-files/{source}"))
    _put(tree, "etc/nsswitch.conf", content(tree, "usr/share/libc-bin/nsswitch.conf"))
    if "etc/bash.bashrc" in tree:
        # Before Debian's lines, which end at once for `ssh HOST COMMAND`.
        _put(tree, "etc/bash.bashrc", _SHELL_LINE + content(tree, "etc/bash.bashrc"))
    _put(tree, "etc/profile.d/hearmeman.sh", _SHELL_LINE)
    _put_link(tree, "etc/dpkg/origins/default", "debian")
    _put_link(tree, "etc/localtime", "/usr/share/zoneinfo/Etc/UTC")
    _put(tree, "etc/timezone", b"Etc/UTC\n")
    _put(tree, "etc/hosts", b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
    _put(tree, "etc/hostname", b"hearmeman\n")
    _put(tree, "etc/resolv.conf", b"")
    _put(tree, "etc/shells", b"/bin/sh\n/usr/bin/sh\n/bin/bash\n/usr/bin/bash\n/bin/dash\n/usr/bin/dash\n")


def _accounts(tree: Tree) -> None:
    passwd = _unlocked(content(tree, "usr/share/base-passwd/passwd.master"))
    group = _unlocked(content(tree, "usr/share/base-passwd/group.master"))
    for name, number in USERS.items():
        passwd.append(f"{name}:x:{number}:{number}::/nonexistent:/usr/sbin/nologin")
        group.append(f"{name}:x:{number}:")
    if "usr/sbin/sshd" in tree:
        passwd.append("sshd:x:100:65534::/run/sshd:/usr/sbin/nologin")
        group.append(f"_ssh:x:{_SSH_GROUP}:")
    _put(tree, "etc/passwd", _lines(passwd))
    _put(tree, "etc/group", _lines(group))
    shadow = [f"{line.split(':')[0]}:*:19675:0:99999:7:::" for line in passwd]
    gshadow = [f"{line.split(':')[0]}:*::" for line in group]
    _put(tree, "etc/shadow", _lines(shadow), 0o640, gid=42)
    _put(tree, "etc/gshadow", _lines(gshadow), 0o640, gid=42)
    _put(tree, "etc/subuid", b"")
    _put(tree, "etc/subgid", b"")


def _ssh(tree: Tree) -> None:
    if "usr/sbin/sshd" in tree:
        _put(tree, "etc/ssh/sshd_config", content(tree, "usr/share/openssh/sshd_config"))
    if "usr/bin/ssh-agent" in tree:
        tree["usr/bin/ssh-agent"] = replace(tree["usr/bin/ssh-agent"], mode=0o2755, gid=_SSH_GROUP)


def _unlocked(master: bytes) -> list[str]:
    lines = []
    for line in master.decode().splitlines():
        name, _, *rest = line.split(":")
        lines.append(":".join([name, "x", *rest]))
    return lines


def _lines(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()


def _pam(tree: Tree) -> None:
    for name, (primary, additional, placeholder) in _PAM.items():
        if f"usr/share/pam/common-{name}" not in tree:
            continue
        text = content(tree, f"usr/share/pam/common-{name}").decode()
        lines = {f"${placeholder}_primary": primary, f"${placeholder}_additional": additional}
        # Filled in place: a line after pam_deny would lock every account.
        filled = [lines.get(line.strip(), line) for line in text.splitlines()]
        _put(tree, f"etc/pam.d/common-{name}", _lines(filled))


def _certificates(tree: Tree) -> None:
    folder = "usr/share/ca-certificates/"
    names = sorted(path.removeprefix(folder) for path in tree if path.startswith(folder) and path.endswith(".crt"))
    bundle = b""
    for name in names:
        pem = content(tree, folder + name)
        bundle += pem if pem.endswith(b"\n") else pem + b"\n"
        link = name.rpartition("/")[2][:-4].translate(str.maketrans(" ", "_", "()"))
        _put_link(tree, f"etc/ssl/certs/{link}.pem", f"/{folder}{name}")
    if names:
        _put(tree, "etc/ca-certificates.conf", _lines(names))
        _put(tree, "etc/ssl/certs/ca-certificates.crt", bundle)


def _alternative(tree: Tree, name: str, candidates: tuple[str, ...]) -> None:
    best = next((c for c in candidates if c in tree), None)
    if best is None:
        return
    short = name.rpartition("/")[2]
    _put_link(tree, f"etc/alternatives/{short}", f"/{best}")
    _put_link(tree, name, f"/etc/alternatives/{short}")


def dpkg_database(packages: dict[str, list[Entry]], stanzas: dict[str, dict[str, bytes]]) -> Tree:
    """/var/lib/dpkg: status, file lists and conffiles, so that apt and scanners see what is installed."""
    tree: Tree = {}
    status = b""
    for name in sorted(packages):
        control = stanzas[name]["control"].rstrip(b"\n").split(b"\n")
        conffiles = stanzas[name].get("conffiles", b"").decode().split()
        status += control[0] + b"\nStatus: install ok installed\n" + b"\n".join(control[1:]) + b"\n"
        files = {e.path: e for e in packages[name]}
        hashes = [(c, files[c.strip("/")]) for c in conffiles if c.strip("/") in files]
        if hashes:
            status += b"Conffiles:\n"
            for conffile, entry in hashes:
                status += f" {conffile} {_md5(entry)}\n".encode()
        status += b"\n"
        listing = _lines(["/.", *sorted(f"/{path}" for path in files)])
        same = b"Multi-Arch: same" in stanzas[name]["control"]
        stem = f"var/lib/dpkg/info/{name}:amd64" if same else f"var/lib/dpkg/info/{name}"
        _put(tree, f"{stem}.list", listing)
        for part in ("md5sums", "conffiles", "shlibs", "triggers"):
            if part in stanzas[name]:
                _put(tree, f"{stem}.{part}", stanzas[name][part])
    _put(tree, "var/lib/dpkg/status", status)
    _put(tree, "var/lib/dpkg/available", b"")
    _put(tree, "var/lib/dpkg/info/format", b"1\n")
    return tree


def _md5(entry: Entry) -> str:
    if entry.open is None:
        raise BuildError(f"/{entry.path} is not a file")
    return hashlib.md5(entry.open().read(), usedforsecurity=False).hexdigest()
