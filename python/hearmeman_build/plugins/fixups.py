"""What the packages' maintainer scripts would have done, as changes to the merged tree."""

from __future__ import annotations

from dataclasses import replace

from hearmeman_build.errors import BuildError
from hearmeman_build.plugins.layer import Entry, dir_entry, file_entry, link_entry

Tree = dict[str, Entry]

USERS = {
    "hearmeman-door": 990,
    "hearmeman-sync": 991,
    "hearmeman-fetch": 992,
    "comfyui": 993,
    "hearmeman-jupyter": 994,
    "hearmeman-worker": 995,
    "hearmeman-idle": 996,
}
"""System users for ComfyUI and for the processes that hold secrets: name -> uid and gid."""

_PERSON_OF = {"comfyui": ("/workspace/.hearmeman/comfyui/home", "/bin/bash")}
"""User that a person can become -> home and shell."""

_PACKAGE_USERS = {"usr/sbin/sshd": ("sshd", 100, "/run/sshd")}
"""Program -> the user that its package's postinst makes: name, uid, home; group nogroup."""

_PACKAGE_GROUPS = {"usr/bin/ssh-agent": ("_ssh", 101)}
"""Program -> the group that its package's postinst makes."""

_LIBRARIES = "usr/lib/x86_64-linux-gnu"

_SHELL_LINE = b"# What boot made of the pod's settings, without secrets.\n[ -r /run/hearmeman/shell.env ] && . /run/hearmeman/shell.env\n"
"""For every interactive shell; boot writes the file."""

_ALTERNATIVES = {
    "usr/bin/awk": ("usr/bin/gawk", "usr/bin/mawk"),
    "usr/bin/nawk": ("usr/bin/gawk", "usr/bin/mawk"),
    "usr/bin/which": ("usr/bin/which.debianutils",),
    "usr/bin/pager": ("usr/bin/less", "usr/bin/more"),
    "usr/bin/editor": ("usr/bin/nano", "usr/bin/vim.tiny"),
    "usr/bin/pico": ("usr/bin/nano",),
    "usr/bin/vi": ("usr/bin/vim.tiny",),
    "usr/bin/view": ("usr/bin/vim.tiny",),
    "usr/bin/ex": ("usr/bin/vim.tiny",),
    "usr/bin/rview": ("usr/bin/vim.tiny",),
    "usr/bin/cc": ("usr/bin/gcc",),
    "usr/bin/c++": ("usr/bin/g++",),
    "usr/bin/c89": ("usr/bin/c89-gcc",),
    "usr/bin/c99": ("usr/bin/c99-gcc",),
    "usr/lib/cpp": ("usr/bin/cpp",),
    "usr/bin/lzma": ("usr/bin/xz",),
    "usr/bin/unlzma": ("usr/bin/unxz",),
    "usr/bin/lzcat": ("usr/bin/xzcat",),
    "usr/sbin/rmt": ("usr/sbin/rmt-tar",),
    # ffmpeg does not start without these two.
    f"{_LIBRARIES}/libblas.so.3": (f"{_LIBRARIES}/blas/libblas.so.3",),
    f"{_LIBRARIES}/liblapack.so.3": (f"{_LIBRARIES}/lapack/liblapack.so.3",),
}
"""Name -> candidates, best first."""

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
    _access(tree)
    _pam(tree)
    _certificates(tree)
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
        home, shell = _PERSON_OF.get(name, ("/nonexistent", "/usr/sbin/nologin"))
        passwd.append(f"{name}:x:{number}:{number}::{home}:{shell}")
        group.append(f"{name}:x:{number}:")
    for program, (name, number, home) in _PACKAGE_USERS.items():
        if program in tree:
            passwd.append(f"{name}:x:{number}:65534::{home}:/usr/sbin/nologin")
    for program, (name, number) in _PACKAGE_GROUPS.items():
        if program in tree:
            group.append(f"{name}:x:{number}:")
    _put(tree, "etc/passwd", _lines(passwd))
    _put(tree, "etc/group", _lines(group))
    shadow = [f"{line.split(':')[0]}:*:19675:0:99999:7:::" for line in passwd]
    gshadow = [f"{line.split(':')[0]}:*::" for line in group]
    _put(tree, "etc/shadow", _lines(shadow), 0o640, gid=42)
    _put(tree, "etc/gshadow", _lines(gshadow), 0o640, gid=42)
    _put(tree, "etc/subuid", b"")
    _put(tree, "etc/subgid", b"")


def _access(tree: Tree) -> None:
    """Owners and modes that postinsts set, and the files that they write for logins and git."""
    if "usr/bin/ssh-agent" in tree:
        tree["usr/bin/ssh-agent"] = replace(tree["usr/bin/ssh-agent"], mode=0o2755, gid=101)
    if "usr/sbin/sshd" in tree:
        # Host keys are the pod's own: boot makes them.
        _put(tree, "etc/ssh/sshd_config", content(tree, "usr/share/openssh/sshd_config"))
    if "etc/sudoers" in tree:
        tree["etc/sudoers"] = replace(tree["etc/sudoers"], mode=0o440)
    if "usr/bin/git-lfs" in tree:
        _put(tree, "etc/gitconfig", _GIT_LFS)
    if "usr/bin/apt-get" in tree:
        # The package's own example names Debian's archives.
        _put(tree, "etc/apt/sources.list", content(tree, "usr/share/doc/apt/examples/sources.list"))
    for folder, mode, gid in (("var/mail", 0o2775, 8), ("var/local", 0o2775, 50)):
        tree[folder] = replace(dir_entry(folder, mode), gid=gid)
    _put_link(tree, "var/spool/mail", "../mail")


_GIT_LFS = b"""[filter "lfs"]
\tclean = git-lfs clean -- %f
\tsmudge = git-lfs smudge -- %f
\tprocess = git-lfs filter-process
\trequired = true
"""


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
        # OpenSSL's own default: without it Python finds no authority, since the links are not hashed here.
        _put_link(tree, "usr/lib/ssl/cert.pem", "/etc/ssl/certs/ca-certificates.crt")


def _alternative(tree: Tree, name: str, candidates: tuple[str, ...]) -> None:
    best = next((c for c in candidates if c in tree), None)
    if best is None:
        return
    short = name.rpartition("/")[2]
    if name.startswith(_LIBRARIES):
        short += "-x86_64-linux-gnu"
    _put_link(tree, f"etc/alternatives/{short}", f"/{best}")
    _put_link(tree, name, f"/etc/alternatives/{short}")
