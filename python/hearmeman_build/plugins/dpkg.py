"""Writes dpkg's database, so that apt, dpkg and scanners see what is installed, and apt can change it."""

from __future__ import annotations

import hashlib

from hearmeman_build.errors import BuildError
from hearmeman_build.plugins.layer import Entry, dir_entry, file_entry

_ROOT = "var/lib/dpkg"
_SCRIPTS = ("preinst", "postinst", "prerm", "postrm", "config")


def database(packages: dict[str, list[Entry]], stanzas: dict[str, dict[str, bytes]]) -> dict[str, Entry]:
    """The files under /var/lib/dpkg: status, each package's list, conffiles and scripts, and the triggers.

    `packages` are the entries of each package's data tar, `stanzas` the files of its control tar.
    """
    tree: dict[str, Entry] = {}
    for folder in ("alternatives", "info", "parts", "triggers", "updates"):
        tree[f"{_ROOT}/{folder}"] = dir_entry(f"{_ROOT}/{folder}")
    status = b""
    for name in sorted(packages):
        status += _stanza(stanzas[name], packages[name])
        same = b"\nMulti-Arch: same" in stanzas[name]["control"]
        stem = f"{_ROOT}/info/{name}:amd64" if same else f"{_ROOT}/info/{name}"
        listing = "\n".join(["/.", *sorted(f"/{entry.path}" for entry in packages[name])]) + "\n"
        _put(tree, f"{stem}.list", listing.encode())
        for part, content in stanzas[name].items():
            if part != "control":
                _put(tree, f"{stem}.{part}", content, 0o755 if part in _SCRIPTS else 0o644)
    _put(tree, f"{_ROOT}/status", status)
    _put(tree, f"{_ROOT}/info/format", b"1\n")
    for empty in ("available", "diversions", "statoverride", "triggers/Lock", "triggers/Unincorp"):
        _put(tree, f"{_ROOT}/{empty}", b"")
    for path, lines in _triggers(stanzas).items():
        _put(tree, f"{_ROOT}/triggers/{path}", "".join(f"{line}\n" for line in lines).encode())
    return tree


def _put(tree: dict[str, Entry], path: str, content: bytes, mode: int = 0o644) -> None:
    tree[path] = file_entry(path, content, mode)


def _stanza(control: dict[str, bytes], entries: list[Entry]) -> bytes:
    first, *rest = control["control"].rstrip(b"\n").split(b"\n")
    stanza = b"\n".join([first, b"Status: install ok installed", *rest]) + b"\n"
    files = {entry.path: entry for entry in entries}
    named = control.get("conffiles", b"").decode().split()
    conffiles = [(name, files[name.strip("/")]) for name in named if name.strip("/") in files]
    if conffiles:
        stanza += b"Conffiles:\n"
        for name, entry in conffiles:
            stanza += f" {name} {_md5(entry)}\n".encode()
    return stanza + b"\n"


def _triggers(stanzas: dict[str, dict[str, bytes]]) -> dict[str, list[str]]:
    """Who wants to hear of what: `File` for paths, one file for each other trigger (deb-triggers(5))."""
    found: dict[str, list[str]] = {"File": []}
    for name in sorted(stanzas):
        for line in stanzas[name].get("triggers", b"").decode().splitlines():
            words = line.partition("#")[0].split()
            if len(words) != 2 or not words[0].startswith("interest"):
                continue
            mark = "/noawait" if words[0].endswith("-noawait") else ""
            if words[1].startswith("/"):
                found["File"].append(f"{words[1]} {name}{mark}")
            else:
                found.setdefault(words[1], []).append(f"{name}{mark}")
    return found


def _md5(entry: Entry) -> str:
    if entry.open is None:
        raise BuildError(f"/{entry.path} is not a file")
    return hashlib.md5(entry.open().read(), usedforsecurity=False).hexdigest()
