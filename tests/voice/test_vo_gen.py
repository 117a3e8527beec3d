"""xtts-vo-gen against both real APIs: every flag of the specification, batches that go on, and what goes wrong."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import wave
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hearmeman_voice import vo_gen
from hearmeman_voice.audio import decode
from support.repository import ROOT
from support.voice import tone
from support.waiting import PATIENCE

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]
GEN = ROOT / "nix/apps/xtts-vo-gen"


def call(folder: Path, *words: str, stdin: bytes = b"", **environ: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command in `folder`, in this process: to start one takes longer than most of what it does."""
    given, out, err = io.TextIOWrapper(io.BytesIO(stdin)), *(io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    before = sys.stdin
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        sys.stdin = given
        try:
            code = vo_gen.main(words, environ)
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            sys.stdin = before
    for stream in (out, err):
        stream.flush()
    printed, said = (stream.buffer.getvalue() for stream in (out, err))
    return subprocess.CompletedProcess(words, code, printed, said)


@contextmanager
def started(folder: Path, *words: str, within: Sequence[str] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command as a process; `within` is a command that runs another, such as bwrap's."""
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "python"), "HOME": str(folder)}
    command = [*within, sys.executable, "-m", "hearmeman_voice.vo_gen", *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=env, cwd=folder, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        yield process


def seconds(sound: bytes) -> float:
    with wave.open(io.BytesIO(sound)) as file:
        return float(file.getnframes() / file.getframerate())


@pytest.fixture(params=["xtts", "chatterbox"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@contextmanager
def server(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A server on loopback that answers every request as it is told."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer(self)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{made.server_port}"
    finally:
        made.shutdown()
        made.server_close()


def reply(handler: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def test_one_text_becomes_a_file(url: str, tmp_path: Path) -> None:
    done = call(tmp_path, "Hello world", "-o", "hello.wav", "--url", url)
    assert done.returncode == 0, done.stderr
    assert seconds((tmp_path / "hello.wav").read_bytes()) > 0.4
    assert [path.name for path in tmp_path.iterdir()] == ["hello.wav"]
    listed = json.loads(call(tmp_path, "Again", "--json", VOICE_URL=url).stdout)
    assert listed["file"] == "output.wav"
    assert listed["seconds"] == round(seconds((tmp_path / "output.wav").read_bytes()), 2)


def test_a_stream_is_a_wav_that_plays(url: str, tmp_path: Path) -> None:
    done = call(tmp_path, "Streaming test. It has two sentences.", "--stream", "--url", url)
    assert done.returncode == 0, done.stderr
    played = len(decode(done.stdout)[0]) / 24000
    assert played == pytest.approx((len(done.stdout) - 44) / 48000, abs=0.01)
    assert played > 1


def test_lists(url: str, tmp_path: Path) -> None:
    assert {"male", "female", "calm_female"} <= set(
        call(tmp_path, "--list-speakers", "--url", url).stdout.decode().split()
    )
    assert "en" in call(tmp_path, "--list-languages", "--url", f"{url}/v1/").stdout.decode().split()
    assert "female" in json.loads(call(tmp_path, "--list-speakers", "--json", "--url", url).stdout)["speakers"]
    assert "en" in json.loads(call(tmp_path, "--list-languages", "--json", "--url", url).stdout)["languages"].values()


def test_a_script_becomes_numbered_files_and_a_second_run_makes_what_is_new(url: str, tmp_path: Path) -> None:
    script = tmp_path / "script.txt"
    script.write_text("\ufeffThe first.\n\n  \nThe second.\r\nThe third.\n", encoding="utf-8")
    words = ("-f", "script.txt", "-d", "./vo-output", "-p", "scene", "--speaker", "female", "--language", "en")
    done = call(tmp_path, *words, "--url", url)
    assert done.returncode == 0, done.stderr
    assert "[3/3] scene_003.wav" in done.stderr.decode()
    files = sorted((tmp_path / "vo-output").glob("*.wav"))
    assert [file.name for file in files] == ["scene_001.wav", "scene_002.wav", "scene_003.wav"]
    before = {file.name: file.stat().st_mtime_ns for file in files}
    script.write_text("The first.\nAnother second.\nThe third.\n")
    files[2].unlink()
    outputs = json.loads(call(tmp_path, *words, "--json", "--url", url).stdout)["outputs"]
    assert [output["status"] for output in outputs] == ["kept", "made", "made"]
    assert files[0].stat().st_mtime_ns == before["scene_001.wav"]
    assert b"3 made" in call(tmp_path, *words, "--force", "--url", url).stdout


def test_a_recording_is_uploaded_once_and_spoken_with(url: str, tmp_path: Path) -> None:
    tone(tmp_path / "my voice.wav")
    for _ in range(2):
        done = call(tmp_path, "Hello", "-s", "my voice.wav", "-o", "o.wav", "--url", url)
        assert done.returncode == 0, done.stderr
    speakers = call(tmp_path, "--list-speakers", "--url", url).stdout.decode().splitlines()
    assert len([name for name in speakers if name.startswith("my-voice-")]) == 1
    (tmp_path / "no.wav").write_bytes(b"MZ this is a program")
    refused = call(tmp_path, "Hello", "-s", "./no.wav", "--url", url)
    assert refused.returncode == 1
    assert not (tmp_path / "output.wav").exists()


def test_a_line_that_fails_is_named_and_the_others_are_made(url: str, tmp_path: Path) -> None:
    words = ("-f", "-", "-d", "out", "--url", url)
    done = call(tmp_path, *words, "--json", stdin="Fine.\n\U0001f600\nFine too.\n".encode())
    assert done.returncode == 3, done.stderr
    outputs = json.loads(done.stdout)["outputs"]
    assert [output["status"] for output in outputs] == ["made", "failed", "made"]
    assert outputs[1]["error"]
    assert sorted(p.name for p in (tmp_path / "out").glob("*.wav")) == ["line_001.wav", "line_003.wav"]
    assert call(tmp_path, *words, stdin="\U0001f600\n".encode()).returncode == 1
    assert call(tmp_path, "Hi", "-s", "nobody", "--url", url).returncode == 1


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("one", "-f", "script.txt"),
        ("one", "--list-speakers"),
        ("   ",),
        ("one", "-d", "folder"),
        ("one", "-o", "nowhere/one.wav"),
        ("one", "-o", "."),
        ("one", "-o", "/dev/stdout"),
        ("-f", "nowhere.txt"),
        ("-f", "-", "-o", "one.wav"),
        ("-f", "-", "--stream"),
        ("one", "--stream", "--json"),
        ("one", "-s", "nowhere.wav"),
        ("one", "-s", "a/b"),
        ("one", "--url", "file:///etc/passwd"),
        ("-f", "-", "-p", "../up"),
    ],
    ids=" ".join,
)
def test_what_makes_no_sense_is_refused_before_anything_is_asked(words: tuple[str, ...], tmp_path: Path) -> None:
    done = call(tmp_path, *words, VOICE_URL="http://127.0.0.1:9")
    assert done.returncode == 2, done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "advice", "then"),
    [
        ((), "give one of TEXT, --file, --list-speakers and --list-languages", ("one",)),
        ((), "give one of TEXT, --file, --list-speakers and --list-languages", ("--file", "-")),
        ((), "give one of TEXT, --file, --list-speakers and --list-languages", ("--list-speakers",)),
        (("one", "-f", "-"), "--list-languages, not TEXT and --file at once", ("--list-languages",)),
        (("one", "-d", "folder"), "use --output for one text", ("one", "--output", "one.wav")),
        (("-f", "-", "-o", "one.wav"), "use --output-dir with --file", ("-f", "-", "--output-dir", "folder")),
    ],
    ids=str,
)
def test_the_option_that_is_named_is_given(
    xtts: str, words: tuple[str, ...], advice: str, then: tuple[str, ...], tmp_path: Path
) -> None:
    done = call(tmp_path, *words, "--url", xtts, stdin=b"One.")
    assert done.returncode == 2 and advice in done.stderr.decode(), done.stderr
    done = call(tmp_path, *then, "--url", xtts, stdin=b"One.")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", ["/speakers_list", "/tts_to_audio/"])
def test_where_no_voice_api_answers_the_address_is_checked(xtts: str, path: str, tmp_path: Path) -> None:
    """A page of something else is there, at every address or at that of speech."""

    def other(handler: BaseHTTPRequestHandler) -> None:
        reply(handler, 200, b"<html>" if handler.path == path else b'["female"]')

    with server(other) as url:
        done = call(tmp_path, "Hi", "--url", url)
    assert done.returncode == 1 and b": check --url\n" in done.stderr, done.stderr
    assert call(tmp_path, "Hi", "--url", xtts).returncode == 0


def test_the_address_that_a_server_redirects_to_is_given(xtts: str, tmp_path: Path) -> None:
    with server(lambda handler: reply(handler, 301, b"", Location=xtts + handler.path)) as url:
        done = call(tmp_path, "Hi", "--url", url)
    [there] = re.findall(r"redirects to (\S+) \(301\): give that address with --url", done.stderr.decode())
    assert done.returncode == 1
    assert call(tmp_path, "Hi", "--url", there).returncode == 0


def test_where_no_recordings_are_taken_a_speaker_is_named(tmp_path: Path) -> None:
    """As xtts-api-server: speakers, and no address to upload one."""
    sound = (ROOT / "voices/male.wav").read_bytes()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        found = {"/speakers_list": b'["narrator"]', "/tts_to_audio/": sound}.get(handler.path)
        reply(handler, 200 if found else 404, found or b'{"detail": "Not Found"}')

    tone(tmp_path / "me.wav")
    with server(answer) as url:
        done = call(tmp_path, "Hi", "-s", "me.wav", "--url", url)
        assert done.returncode == 1 and b": name one of its own speakers" in done.stderr
        [speaker] = call(tmp_path, "--list-speakers", "--url", url).stdout.decode().split()
        assert call(tmp_path, "Hi", "-s", speaker, "--url", url).returncode == 0


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (("-f", "script.txt", "-d", "out"), "; run the same command again to continue"),
        (("-f", "script.txt", "-d", "out", "--force"), ""),
        (("One text",), ""),
    ],
    ids=["script", "anew", "text"],
)
def test_a_script_that_was_stopped_is_continued_by_the_same_command(
    words: tuple[str, ...], advice: str, tmp_path: Path
) -> None:
    sound = (ROOT / "voices/male.wav").read_bytes()
    (tmp_path / "script.txt").write_text("The first.\nThe second.\n")
    asked: list[str] = []
    is_held, is_stopped = threading.Event(), threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.path == "/speakers_list":
            reply(handler, 200, b'["female"]')
            return
        asked.append(handler.path)
        if len(asked) == (2 if "-f" in words else 1):
            is_held.set()
            is_stopped.wait(PATIENCE)
        with contextlib.suppress(OSError):
            reply(handler, 200, sound)

    with server(answer) as url:
        with started(tmp_path, *words, "--url", url) as process:
            assert is_held.wait(PATIENCE)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=PATIENCE)
        is_stopped.set()
        assert process.returncode == 130 and err.decode().endswith(f"xtts-vo-gen: stopped{advice}\n"), err
        if advice:
            done = call(tmp_path, *words, "--json", "--url", url)
            assert [output["status"] for output in json.loads(done.stdout)["outputs"]] == ["kept", "made"]


def test_nobody_there_ends_a_batch_at_once(tmp_path: Path) -> None:
    done = call(tmp_path, "-f", "-", "--url", "http://127.0.0.1:9", "--json", stdin=b"one\ntwo\n")
    assert done.returncode == 1
    outputs = json.loads(done.stdout)["outputs"]
    assert len({output["error"] for output in outputs}) == 1
    assert "cannot be reached" in outputs[0]["error"]


def test_the_token_goes_to_the_server_that_was_named_and_into_no_output(tmp_path: Path) -> None:
    seen: list[str | None] = []

    def other(handler: BaseHTTPRequestHandler) -> None:
        seen.append(handler.headers.get("Authorization"))
        reply(handler, 200, b"[]")

    def gate(handler: BaseHTTPRequestHandler) -> None:
        right = handler.headers.get("Authorization") == "Bearer secret-token-12"
        reply(handler, 302 if right else 401, b"{}", Location=elsewhere)

    with server(other) as elsewhere, server(gate) as url:
        without = call(tmp_path, "Hi", "--url", url)
        wrong = call(tmp_path, "Hi", "--url", url, ACCESS_TOKEN="wrong-token-123")
        right = call(tmp_path, "Hi", "--url", url, ACCESS_TOKEN="secret-token-12")
    assert [done.returncode for done in (without, wrong, right)] == [1, 1, 1]
    assert b"put the pod's ACCESS_TOKEN into the environment" in without.stderr
    assert b"must be the pod's own" in wrong.stderr
    assert f"redirects to {elsewhere} (302)".encode() in right.stderr
    assert seen == []
    assert b"token-12" not in wrong.stderr + right.stderr


def test_a_busy_server_is_asked_again_and_one_that_says_no_is_not(tmp_path: Path) -> None:
    asked: list[str] = []
    sound = (ROOT / "voices/male.wav").read_bytes()

    def busy(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        if handler.path == "/speakers_list":
            reply(handler, 200, b'["female"]')
        elif asked.count(handler.path) < 3:
            reply(handler, 429, b'{"error": {"message": "8 wait"}}', Retry_After="0.05")
        else:
            reply(handler, 200, sound)

    def never(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        reply(handler, 503, b'{"error": {"message": "no weights"}}', x_should_retry="false")

    with server(busy) as url:
        done = call(tmp_path, "Hi", "-o", "hi.wav", "--url", url)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "hi.wav").read_bytes() == sound
    assert b"8 wait" in done.stderr
    asked.clear()
    with server(never) as url:
        done = call(tmp_path, "Hi", "--url", url)
    assert (done.returncode, len(asked)) == (1, 1)
    assert b"no weights" in done.stderr


def test_a_full_disk_ends_a_batch_and_says_which_lines_are_missing(tmp_path: Path) -> None:
    sound = (ROOT / "voices/male.wav").read_bytes()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        reply(handler, 200, b'["female"]' if handler.path == "/speakers_list" else sound)

    (tmp_path / "out").mkdir()
    room = ["bwrap", "--die-with-parent", "--dev-bind", "/", "/"]
    room += ["--size", str(len(sound) * 3 // 2), "--tmpfs", str(tmp_path / "out")]
    words = ("-f", "-", "-d", "out", "--json")
    with server(answer) as url, started(tmp_path, *words, "--url", url, within=room) as process:
        out, err = process.communicate(b"one\ntwo\nthree\n", PATIENCE)
    assert process.returncode == 3, err
    outputs = json.loads(out)["outputs"]
    assert [output["status"] for output in outputs] == ["made", "failed", "failed"]
    assert {output["error"] for output in outputs[1:]} == {"out/line_002.wav: No space left on device"}
    assert b"Traceback" not in err


@pytest.mark.parametrize(("file", "name"), [("script.txt", "script.txt"), ("-", "stdin")])
def test_a_script_that_is_no_text_is_refused(file: str, name: str, tmp_path: Path) -> None:
    script = "Schöne Grüße\n".encode("latin-1")
    (tmp_path / "script.txt").write_bytes(script)
    done = call(tmp_path, "-f", file, "--url", "http://127.0.0.1:9", stdin=script)
    assert done.returncode == 1
    assert done.stderr.decode() == f"xtts-vo-gen: {name} is not UTF-8 text (byte 3): nothing was made\n"
    assert {path.name for path in tmp_path.iterdir()} == {"script.txt"}


@pytest.mark.parametrize("how", ["short", "no sound", "no wav"])
def test_sound_that_breaks_off_is_no_file(how: str, tmp_path: Path) -> None:
    sound = (ROOT / "voices/male.wav").read_bytes()
    body = {"short": sound[:-1000], "no sound": sound[:44], "no wav": b"<html>"}[how]

    def answer(handler: BaseHTTPRequestHandler) -> None:
        reply(handler, 200, b'["female"]' if handler.path == "/speakers_list" else body)

    with server(answer) as url:
        done = call(tmp_path, "Hi", "-o", "hi.wav", "--url", url)
    assert done.returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_the_app_of_the_flake_starts_it(tmp_path: Path) -> None:
    done = subprocess.run([str(GEN), "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    for flag in ("--file", "--output", "--output-dir", "--speaker", "--language", "--prefix", "--stream"):
        assert flag in done.stdout
