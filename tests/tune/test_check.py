"""A bad machine is found: what the probe says, how it dies, what hangs, what is not there; disk, network and kernel log."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hearmeman.cli import main
from hearmeman.overlay import sage
from hearmeman.tune import check, gpu_probe
from hearmeman.tune.check import Finding
from support.ports import free_port
from support.repository import ROOT
from support.waiting import wait_for


def probe(tmp_path: Path, code: str, seconds: float = 60) -> list[Finding]:
    """Run a script that speaks as the probe does."""
    script = tmp_path / "probe.py"
    script.write_text(f"import json, os, signal, sys, time\nfrom json import dumps\n{code}\n")
    return check.gpu([sys.executable, "-I", str(script)], seconds)


SAY = "def say(**f): print(dumps(f), flush=True)\n"


def test_a_sound_gpu(tmp_path: Path) -> None:
    code = SAY + (
        "say(step='import'); say(step='import', ok=True, what='NVIDIA X'); print('a library says hello')\n"
        "say(step='matmul'); say(step='matmul', ok=True, what='100 TFLOPS')\n"
        "say(step='sage'); say(step='sage', ok=True, what='close')"
    )
    assert probe(tmp_path, code) == [
        Finding("gpu", True, "starting torch: NVIDIA X"),
        Finding("gpu", True, "multiplying matrices: 100 TFLOPS"),
        Finding("sage", True, "trying SageAttention: close"),
    ]


@pytest.mark.parametrize(
    ("code", "finding"),
    [
        ("say(step='matmul'); os.kill(os.getpid(), signal.SIGSEGV)", "multiplying matrices: it died with SIGSEGV"),
        ("say(step='allocate'); os._exit(3)", "filling memory: it ended with 3 and said nothing"),
        ("say(step='allocate', ok=False, what='CUDA error: ECC')", "filling memory: CUDA error: ECC"),
        ("say(step='import', ok=False, what='torch sees no GPU')", "starting torch: torch sees no GPU"),
    ],
)
def test_a_gpu_that_fails_says_at_what(tmp_path: Path, code: str, finding: str) -> None:
    assert probe(tmp_path, SAY + code) == [Finding("gpu", False, finding)]


def test_a_gpu_that_hangs_is_cut_with_all_that_it_started(tmp_path: Path) -> None:
    code = SAY + (
        "import subprocess; child = subprocess.Popen(['sleep', '600'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "say(step='matmul'); time.sleep(600)"
    )
    found = probe(tmp_path, code, seconds=5)
    assert found == [Finding("gpu", False, "multiplying matrices: no answer within 5 s")]
    child = Path("/proc", (tmp_path / "pid").read_text(), "stat")

    def has_ended() -> bool:
        with contextlib.suppress(OSError):
            return child.read_text().rpartition(")")[2].split()[0] == "Z"
        return True

    wait_for(has_ended, "its end")


def test_sageattention_that_fails_is_no_bad_gpu(tmp_path: Path) -> None:
    code = SAY + "say(step='matmul', ok=True, what='fast'); say(step='sage'); os.kill(os.getpid(), signal.SIGABRT)"
    found = probe(tmp_path, code)
    assert [(one.name, one.ok) for one in found] == [("gpu", True), ("sage", False)]
    assert found[1].what == "trying SageAttention: it died with SIGABRT"


def test_a_python_that_is_not_there_tells_nothing_of_the_gpu() -> None:
    assert check.gpu(["/nowhere/python", "x"])[0].ok is None


def test_the_probe_itself_says_that_it_has_no_torch() -> None:
    """The tests' own Python has none; a GPU has never been here."""
    found = check.gpu([sys.executable, "-I", "-S", gpu_probe.__file__], 60)
    assert found == [Finding("gpu", None, "starting torch: ModuleNotFoundError: No module named 'torch'")]


def test_xids_are_found_in_the_kernels_log(tmp_path: Path) -> None:
    text = (
        "6,1,2,-;NVRM: Xid (PCI:0000:01:00): 79, pid=1, GPU has fallen off the bus.\n6,2,3,-;NVRM: Xid (PCI:0): "
        "48, DBE\n"
    )
    assert check.xids(text) == Finding("xid", False, "the driver reported the GPU errors Xid 48, 79: use another pod")
    (tmp_path / "kmsg").write_text(text)
    assert check.read_xids(tmp_path / "kmsg").ok is False
    assert check.read_xids(tmp_path / "none").ok is None
    assert check.xids("all quiet").ok is True


def test_a_disk_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    found = check.disk(tmp_path / "models", 4 * 1024**2)
    assert found.ok is not None
    assert "writes" in found.what and "reads" in found.what
    assert list((tmp_path / "models").iterdir()) == []
    (tmp_path / "file").write_text("")
    assert check.disk(tmp_path / "file").ok is None


class _Hub(BaseHTTPRequestHandler):
    status = 206
    asked: dict[str, str]

    def do_GET(self) -> None:
        type(self).asked = {name.lower(): value for name, value in self.headers.items()}
        body = bytes(1 << 20)
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_hub_s_speed_is_measured_without_a_token(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = check.hub(hub, size=1 << 20)
    assert found.ok is not None
    assert "/s" in found.what
    assert _Hub.asked["range"] == "bytes=0-1048575"
    assert "authorization" not in _Hub.asked
    monkeypatch.setattr(_Hub, "status", 404)
    assert check.hub(hub) == Finding("hub", None, f"{hub} answers 404: its speed is not known")
    assert check.hub(f"http://127.0.0.1:{free_port()}").ok is False


def test_a_look_that_breaks_is_a_finding_and_hides_no_other() -> None:
    def broken() -> Finding:
        raise ZeroDivisionError("no good")

    found = check.all_of((broken, lambda: Finding("disk", True, "fine")))
    assert [(one.name, one.ok) for one in found] == [("check", None), ("disk", True)]


def test_the_command_reports_for_the_status(tmp_path: Path) -> None:
    image = {"tier": "s", "comfyui_rev": "a", "comfyui_python": sys.executable, "comfyui_main": "m", "cuda_floor": "1"}
    (tmp_path / "image.json").write_text(json.dumps(image))
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "python"), "VOLUME_DIR": str(tmp_path)}
    environ["HF_ENDPOINT"] = f"http://127.0.0.1:{free_port()}"
    words = [sys.executable, "-m", "hearmeman", "check", "--image-file", str(tmp_path / "image.json")]
    run = {"env": environ, "capture_output": True, "text": True, "check": False, "timeout": 120}
    done = subprocess.run([*words, "--report", str(tmp_path / "machine.json")], **run)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    assert "machine.checked part=hub ok=false" in done.stderr
    names = {finding["name"] for finding in json.loads((tmp_path / "machine.json").read_text())["findings"]}
    assert names >= {"gpu", "xid", "disk", "hub"}
    typed = subprocess.run(words, **run)  # type: ignore[call-overload]
    assert typed.returncode == 1
    assert "UNSOUND" in typed.stdout


def test_a_report_takes_the_place_of_no_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert main(["check", "--report", str(pipe)], {"VOLUME_DIR": str(tmp_path)}) == 2
    assert f"--report {pipe} is not a file: name one, or give --json" in capsys.readouterr().err
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    ("wish", "argv", "sound", "given"),
    [
        ("true", [], True, [sage.FLAG]),
        ("Yes ", [], True, [sage.FLAG]),
        ("true", [], False, []),
        ("false", [], True, []),
        ("", [], True, []),
        ("true", ["--use-flash-attention"], True, []),
        ("true", ["--cpu"], True, []),
        ("true", [sage.FLAG], True, []),
    ],
)
def test_sageattention_is_used_where_it_is_wished_and_works(
    tmp_path: Path, wish: str, argv: list[str], sound: bool, given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    report = {"findings": [{"name": "sage", "ok": sound, "what": "trying SageAttention: so it is"}]}
    (tmp_path / "machine.json").write_text(json.dumps(report))
    assert sage.arguments(argv, {"SAGE_ATTENTION": wish, "STATE_DIR": str(tmp_path)}) == given
    if wish == "true" and not given and sage.FLAG not in argv:
        assert "sage.not_used" in capsys.readouterr().err


def test_comfyui_does_not_wait_for_ever_for_the_try(tmp_path: Path) -> None:
    assert sage.arguments([], {"SAGE_ATTENTION": "1", "STATE_DIR": str(tmp_path)}, wait=0.3) == []
