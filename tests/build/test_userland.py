"""The userland: reading .debs, merging them, and what the fixups leave."""

from __future__ import annotations

import io
import lzma
import tarfile
from pathlib import Path

import pytest

from hearmeman_build.errors import BuildError
from hearmeman_build.lock_userland import parse_uri, read_packages
from hearmeman_build.plugins import debs, fixups, userland
from hearmeman_build.plugins.layer import Entry, file_entry

ZSTD = ["/usr/bin/zstd"]


def _tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return lzma.compress(out.getvalue())


def make_deb(path: Path, files: dict[str, bytes]) -> Path:
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": _tar({"./control": f"Package: {path.stem}\nVersion: 1\n".encode()}),
        "data.tar.xz": _tar(files),
    }
    out = b"!<arch>\n"
    for name, body in members.items():
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(body):<10}`\n".encode() + body + b"\n" * (len(body) % 2)
    path.write_bytes(out)
    return path


def _entries(folder: Path, name: str, files: dict[str, bytes]) -> list[Entry]:
    deb = make_deb(folder / f"{name}.deb", files)
    spooled = folder / f"{name}.tar"
    with spooled.open("wb") as spool:
        debs.unpack(deb, "data", ZSTD, spool)
    return userland.entries_of(spooled)


def test_paths_of_a_merged_usr() -> None:
    assert userland.merged("./bin/x") == "usr/bin/x"
    assert userland.merged("./.hidden") == ".hidden"
    assert userland.merged("./usr/lib/x") == "usr/lib/x"


def test_merge_keeps_content_and_refuses_a_file_shipped_twice(tmp_path: Path) -> None:
    one = _entries(tmp_path, "one", {"./bin/same": b"1", "./etc/one": b"etc"})
    two = _entries(tmp_path, "two", {"./usr/bin/same": b"2"})
    tree = userland.merge({"one": one})

    assert fixups.content(tree, "usr/bin/same") == b"1"
    assert tree["bin"].target == "usr/bin"
    with pytest.raises(BuildError, match="/usr/bin/same is in both one and two: drop one of them"):
        userland.merge({"one": one, "two": two})
    assert fixups.content(userland.merge({"two": two}), "usr/bin/same") == b"2"


@pytest.mark.parametrize("cut", [40, 100, 400])
def test_a_truncated_deb_is_named(tmp_path: Path, cut: int) -> None:
    deb = make_deb(tmp_path / "toy.deb", {"./usr/share/toy": bytes(range(256)) * 40})
    deb.write_bytes(deb.read_bytes()[:-cut])
    with pytest.raises(BuildError, match=r"toy\.deb is truncated: run `make prefetch`"):
        debs.members(deb)


def test_a_file_that_is_no_deb_is_named(tmp_path: Path) -> None:
    path = tmp_path / "toy.deb"
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(BuildError, match=r"toy\.deb is not a Debian package"):
        debs.members(path)


def test_a_missing_package_is_named_by_its_file() -> None:
    with pytest.raises(BuildError, match="missing from packages.txt"):
        fixups.apply({"usr/bin/x": file_entry("usr/bin/x", b"")})


def test_packages_txt_and_apt_lines() -> None:
    assert read_packages("# c\n[core]\na b # d\n[media]\nc\n") == {"core": ["a", "b"], "media": ["c"]}
    line = f"'http://mirror.example/debian/pool/main/t/tini/tini_0.19.0-1_amd64.deb' tini_0.19.0-1_amd64.deb 7 SHA256:{'a' * 64}"
    deb = parse_uri(line)
    assert deb is not None
    assert (deb.package, deb.version, deb.archive, deb.file) == (
        "tini",
        "0.19.0-1",
        "debian",
        "pool/main/t/tini/tini_0.19.0-1_amd64.deb",
    )
    assert parse_uri("Reading package lists...") is None
