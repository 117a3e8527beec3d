"""The commands of the specification work as they are written there, in the image."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.s3 import S3
from hearmeman.sync.keys import utc_date
from hearmeman_build.build import Image
from support.outputs import png
from support.pod import Pod
from support.waiting import PATIENCE, wait_for


@pytest.fixture
def server() -> Iterator[S3]:
    with S3() as s3:
        yield s3


def test_the_old_commands(image: Image, server: S3, tmp_path: Path) -> None:
    pod = Pod(image, tmp_path)
    output = tmp_path / "ComfyUI/output"
    output.mkdir(parents=True)
    for name in ("file1.png", "file2.mp4", "file3.wav", "out.mp4"):
        (output / name).write_text(name)

    def typed(*words: str) -> subprocess.CompletedProcess[str]:
        command = pod.command(*words, variables=server.environ())
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)

    script = ("python3", "/upload_to_r2.py")
    assert "usage: hearmeman upload" in typed(*script, "--help").stdout
    done = typed(*script, "--test")
    assert (done.returncode, "takes uploads" in done.stdout) == (0, True), done.stderr
    folder = "/workspace/ComfyUI/output"
    files = [f"{folder}/{name}" for name in ("file1.png", "file2.mp4", "file3.wav")]
    done = typed(*script, *files)
    assert done.returncode == 0, done.stderr
    done = typed(*script, "--prefix", "videos", f"{folder}/out.mp4")
    assert done.returncode == 0, done.stderr
    day = utc_date((output / "out.mp4").stat().st_mtime_ns)
    found = {key: body for key, body in server.objects().items() if ".hearmeman-test" not in key}
    wanted = {f"outputs/{day}/{name}": name.encode() for name in ("file1.png", "file2.mp4", "file3.wav")}
    assert found == {**wanted, f"videos/{day}/out.mp4": b"out.mp4"}


def test_the_old_daemon(image: Image, server: S3, tmp_path: Path) -> None:
    pod = Pod(image, tmp_path)
    (tmp_path / "ComfyUI/output").mkdir(parents=True)
    (tmp_path / "ComfyUI/output/a.png").write_bytes(png(b"a"))
    command = pod.command("/r2_sync.sh", variables=server.environ())
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            wait_for(lambda: list(server.objects().values()) == [png(b"a")], "the upload")
        finally:
            process.send_signal(signal.SIGKILL)  # bwrap takes the daemon along.
