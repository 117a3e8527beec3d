"""Which prompt made a file: asked of ComfyUI for new files only, and one answer serves many."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hearmeman.sync.prompts import Prompts


class ComfyUI(ThreadingHTTPServer):
    """Answers as ComfyUI does while one prompt runs and others have ended; counts what it is asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.seconds = 0.0
        named = [{"filename": name, "subfolder": "sub", "type": "output"} for name in ("a.png", "b.png")]
        strange = {"outputs": {"9": {"gifs": [{"filename": "x.gif", "subfolder": "", "type": "output"}]}}}
        self.history: dict[str, object] = {"ended-1": {"outputs": {"9": {"images": named}}}, "h\u00e4": strange}
        graph = {"1": {"inputs": {"filename_prefix": "video/clip"}}, "2": {"inputs": {"seed": 1}}}
        self.running: list[object] = [[0, "running-1", graph, {}, []]]


class _Handler(BaseHTTPRequestHandler):
    server: ComfyUI

    def do_GET(self) -> None:
        kind = self.path.partition("?")[0]
        self.server.asked.append(kind)
        time.sleep(self.server.seconds)
        queue = {"queue_running": self.server.running, "queue_pending": []}
        body = json.dumps(self.server.history if kind == "/history" else queue).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[ComfyUI]:
    with ComfyUI() as found:
        threading.Thread(target=found.serve_forever, args=(0.02,), daemon=True).start()
        yield found
        found.shutdown()


def prompts_of(server: ComfyUI) -> Prompts:
    return Prompts(f"http://127.0.0.1:{server.server_port}")


def test_whose_file_it_is(server: ComfyUI) -> None:
    prompts, now = prompts_of(server), time.time_ns()
    assert prompts.of("sub/a.png", now) == "ended-1"
    assert prompts.of("video/clip_00001_.mp4", now) == "running-1"
    assert prompts.of("other.png", now) == ""
    assert prompts.of("x.gif", now) == ""
    # Once known it stays so, though the file is old by now.
    assert prompts.of("sub/b.png", 0) == "ended-1"
    assert server.asked == ["/history", "/queue"]


def test_nobody_is_asked_about_old_files(server: ComfyUI) -> None:
    prompts = prompts_of(server)
    for number in range(200):
        assert prompts.of(f"{number}.png", time.time_ns() - 3600 * 10**9) == ""
    assert server.asked == []


def test_one_answer_serves_all_files_written_before_it(server: ComfyUI) -> None:
    prompts, now = prompts_of(server), time.time_ns()
    server.seconds = 0.2
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda number: prompts.of(f"video/clip_{number:05}.mp4", now), range(200)))
    assert set(found) == {"running-1"}
    assert server.asked == ["/history", "/queue"]


def test_an_old_answer_does_not_give_a_new_file_to_the_prompt_before(server: ComfyUI) -> None:
    prompts = prompts_of(server)
    assert prompts.of("video/clip_00001.mp4", time.time_ns()) == "running-1"
    graph = {"1": {"inputs": {"filename_prefix": "video/clip"}}}
    server.running = [[0, "running-2", graph, {}, []]]
    assert prompts.of("video/clip_00002.mp4", time.time_ns()) == "running-2"


def test_a_comfyui_that_is_busy_is_waited_for(server: ComfyUI) -> None:
    server.seconds = 1.5
    assert prompts_of(server).of("video/clip_00001.mp4", time.time_ns()) == "running-1"


def test_a_comfyui_that_does_not_answer_is_left_alone(server: ComfyUI) -> None:
    assert Prompts("http://127.0.0.1:9").of("a.png", time.time_ns()) == ""
    prompts = prompts_of(server)
    server.history = {"ended-1": {"outputs": "nonsense"}}
    for number in range(20):
        assert prompts.of(f"{number}.png", time.time_ns()) == ""
    assert server.asked == ["/history"]
