"""What the sync and `hearmeman upload` advise, followed: the same command sends the file."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.r2 import R2
from hearmeman.boot.owners import acting_as_comfyui
from hearmeman.cli import main
from hearmeman.sync.upload import IN_MEMORY
from support.ctrl_c import ctrl_c
from support.waiting import PATIENCE


@pytest.fixture
def r2() -> Iterator[R2]:
    with R2() as server:
        yield server


def upload(r2: R2, *files: Path) -> int:
    return main(["upload", *map(str, files)], r2.environ())


def test_a_file_is_sent_under_a_shorter_name(r2: R2, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / f"{'long' * 50}.png"
    file.write_bytes(b"content")

    def refuse(operation: str, key: str) -> None:
        if operation == "put_object" and len(key) > 200:
            r2.fail(414, "KeyTooLongError")

    r2.before = refuse
    assert upload(r2, file) == 1
    assert "the bucket refuses a name this long: shorten the file's name" in capsys.readouterr().err
    assert upload(r2, file.rename(tmp_path / "short.png")) == 0


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("https://127.0.0.1:{port}", "no secure connection"),
        ("http://no-such-host.invalid", "is not known"),
        ("http://127.0.0.1:9", "cannot be reached"),
    ],
)
def test_a_file_is_sent_to_the_corrected_endpoint(
    r2: R2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wrong: str, says: str
) -> None:
    monkeypatch.setattr("hearmeman.sync.patience.pause_after", lambda attempt: 0.0)
    file = tmp_path / "a.png"
    file.write_bytes(b"content")
    assert main(["upload", str(file)], r2.environ() | {"R2_ENDPOINT": wrong.format(port=r2.port)}) == 1
    said = capsys.readouterr().err
    assert says in said and "check R2_ENDPOINT" in said
    assert upload(r2, file) == 0


def test_a_file_is_sent_once_it_may_be_read(r2: R2, capsys: pytest.CaptureFixture[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="outputs-") as folder:
        Path(folder).chmod(0o755)
        file = Path(folder) / "a.png"
        file.write_bytes(b"content")
        file.chmod(0o600)
        for mode, code in ((0o600, 1), (0o644, 0)):
            file.chmod(mode)
            with acting_as_comfyui():
                assert upload(r2, file) == code
            advised = "Permission denied: let this process's user read it" in capsys.readouterr().err
            assert advised == (code == 1)


def test_a_file_is_sent_when_it_is_finished(
    r2: R2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hearmeman.sync.patience.pause_after", lambda attempt: 0.0)
    file = tmp_path / "a.mp4"
    file.write_bytes(bytes(IN_MEMORY + 1))

    def write(operation: str, key: str) -> None:
        with file.open("r+b") as writing:
            writing.seek(IN_MEMORY - 9)
            writing.write(os.urandom(9))

    r2.before = write
    assert upload(r2, file) == 1
    assert "it is being written to: try again when it is finished" in capsys.readouterr().err
    r2.before = lambda operation, key: None
    assert upload(r2, file) == 0
    assert list(r2.contents().values()) == [file.read_bytes()]


def test_after_ctrl_c_the_rest_is_sent_by_the_same_command(
    r2: R2, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / name for name in ("a.png", "b.png")]
    for file in files:
        file.write_bytes(file.name.encode())
    begun, let = threading.Event(), threading.Event()

    def hold(operation: str, key: str) -> None:
        if operation == "put_object" and key.endswith("b.png"):
            begun.set()
            let.wait(PATIENCE)

    r2.before = hold
    with ctrl_c(begun.is_set, let.set):
        assert upload(r2, *files) == 130
    assert "run it again to send the rest" in capsys.readouterr().err
    assert upload(r2, *files) == 0
    assert sorted(r2.contents().values()) == [b"a.png", b"b.png"]
