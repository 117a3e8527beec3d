"""What goes wrong while a workflow runs: ComfyUI dies or starts again, the disk is full, two save at once."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from fakes.comfyui import ComfyUI, comfyui, command
from hearmeman.cli import main
from hearmeman.models import catalogue
from hearmeman.workflows import advice, answers, client, library, once, run_command, schema
from hearmeman.workflows.library import Graph
from support.media import film, picture
from support.ports import free_port
from support.repository import ROOT
from support.waiting import PATIENCE

FOLDER = ROOT / "workflows"
WORKFLOWS = library.load(FOLDER)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyUI]:
    with comfyui(tmp_path_factory.mktemp("comfyui"), write_seconds=0.05) as running:
        yield running


def graph(*settings: str) -> Graph:
    workflow = WORKFLOWS["smoke-image"]
    return library.apply(workflow, library.graph(workflow), settings)


async def ended(url: str, sent: Graph, patience: float, then: threading.Event) -> None:
    """Run a graph, and say by `then` when ComfyUI works at it."""
    async with client.Client(url, patience=patience) as comfy:
        await comfy.run(sent, 2 * PATIENCE, lambda progress: then.set())


def test_a_comfyui_that_dies_in_mid_run_is_said(tmp_path: Path) -> None:
    with comfyui(tmp_path, write_seconds=0.2) as dying:
        working = threading.Event()

        def kill() -> None:
            working.wait(PATIENCE)
            dying.process.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            with pytest.raises(answers.NotReachableError, match="does not answer at .* check `hearmeman status`"):
                asyncio.run(ended(dying.url, graph("count=4000"), 0.5, working))
        finally:
            working.set()
            killer.join()


def test_a_comfyui_that_was_started_again_in_mid_run_is_said(tmp_path: Path) -> None:
    """As when the kernel ends it for its memory and the pod starts another."""
    with comfyui(tmp_path, write_seconds=0.2) as first:
        working = threading.Event()
        second: list[subprocess.Popen[bytes]] = []

        def again() -> None:
            working.wait(PATIENCE)
            first.process.kill()
            first.process.wait(PATIENCE)
            second.append(subprocess.Popen(command(first.base, first.port), stdout=subprocess.DEVNULL))

        restart = threading.Thread(target=again)
        restart.start()
        try:
            with pytest.raises(
                answers.RunFailedError, match=r"no longer knows .* as when memory .* run the workflow again"
            ):
                asyncio.run(ended(first.url, graph("count=15"), PATIENCE, working))
            asyncio.run(ended(first.url, graph("count=15"), PATIENCE, working))
        finally:
            working.set()
            restart.join()
            for process in second:
                process.kill()
                process.wait(PATIENCE)


def test_an_end_between_two_slow_answers_is_found() -> None:
    """ComfyUI answers late while a node holds its interpreter: the queue's answer may come after the prompt's end."""
    entry = {"status": {"completed": True, "messages": []}, "outputs": {}}
    over: list[bool] = []

    async def asked(request: web.Request) -> web.Response:
        if request.path == "/queue":
            await asyncio.sleep(2.5)
            over.append(True)
            return web.json_response({"queue_running": [], "queue_pending": []})
        return web.json_response({"x": entry} if over else {})

    async def go() -> answers.Result:
        app, port = web.Application(), free_port()
        app.router.add_get("/{path:.*}", asked)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        try:
            async with client.Client(f"http://127.0.0.1:{port}") as comfy:
                return await comfy.finish("x", {}, 30)
        finally:
            await runner.cleanup()

    assert asyncio.run(go()).prompt_id == "x"


def test_a_full_disk_leaves_nothing_half_saved(server: ComfyUI, tmp_path: Path) -> None:
    """A filesystem of 8 pages, which a picture does not fit into, since it holds one that is nearly as large."""
    full = tmp_path / "full"
    full.mkdir()
    words = [sys.executable, "-m", "hearmeman", "workflows", "run", "smoke-image", "--dir", str(FOLDER)]
    words += ["--url", server.url, "--out", str(full), "--set", "color=41", "--set", "width=128"]
    script = f'head -c 32768 /dev/zero >{full}/filler 2>/dev/null; "$@"; code=$?; find {full} -type f; exit $code'
    there = [shutil.which("bwrap") or "bwrap", "--dev-bind", "/", "/", "--size", "32768", "--tmpfs", str(full)]
    done = subprocess.run(
        [*there, "--setenv", "PYTHONPATH", str(ROOT / "python"), "--", "sh", "-c", script, "sh", *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1, done.stderr
    assert "cannot write to the folder given with --out" in done.stderr and "No space left on device" in done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith(str(full))] == [f"{full}/filler"]


def test_two_that_save_the_same_name_at_once_both_keep_their_file(server: ComfyUI, tmp_path: Path) -> None:
    async def go() -> list[Path]:
        async with client.Client(server.url) as comfy:
            results = [await comfy.run(graph(f"color={n}"), 60, lambda progress: None) for n in (51, 52)]
            # ComfyUI of two pods gives two pictures one name.
            [first], [second] = results[0].outputs, results[1].outputs
            saves = [once.save(comfy, output, tmp_path, output.filename) for output in [first, second] * 4]
            same = [once.save(comfy, first, tmp_path / "one", "0123456789") for _ in range(6)]
            return await asyncio.gather(*saves, *same)

    saved = asyncio.run(go())
    assert len(set(saved)) == len(saved) == 14
    assert all(path.read_bytes()[-8:-4] == b"IEND" for path in saved)
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".part")]


def test_two_runs_at_once_do_not_meet(server: ComfyUI, tmp_path: Path) -> None:
    words = ["workflows", "run", "smoke-image", "--dir", str(FOLDER), "--url", server.url, "--out", str(tmp_path)]
    codes: list[int] = []
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "hearmeman", *words, "--set", f"color={color}"],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "python")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for color in (61, 62)
    ]
    for one in runs:
        _, said = one.communicate(timeout=PATIENCE)
        codes.append(one.returncode)
        assert one.returncode == 0, said
    pictures = [path.read_bytes() for path in tmp_path.rglob("*.png")]
    assert codes == [0, 0] and len(pictures) == 2 and pictures[0] != pictures[1]


def test_models_that_are_missing_are_named_with_the_way(tmp_path: Path) -> None:
    environ = {"VOLUME_DIR": str(tmp_path), "MODEL_CATALOGUE": catalogue.__file__.replace(".py", ".toml")}
    needs = WORKFLOWS["vace-t2v"].needs({"speed": "4steps"})
    missing = run_command.missing_models(needs, environ)
    assert missing == ["vace-14b", "wan21-causvid-lora"]
    said = advice.for_refusal(answers.RefusedError("refused"), schema.read(FOLDER / schema.FILE), missing)
    assert said == (
        "models are missing: `hearmeman models fetch vace-14b wan21-causvid-lora`, or the same command with --fetch"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "wan22-i2w"], "no workflow is named wan22-i2w: did you mean wan22-i2v?"),
        (["run", "wan21-t2v-14b", "--set", "promt=x"], "did you mean prompt?"),
        (["run", "wan21-t2v-14b", "--set", "cfg=1000"], "1000 is not within 0 to 100"),
        (["run", "wan21-t2v-14b", "--set", "frames=80"], "80 is not 4n+1; the nearest are 77 and 81"),
        (["run", "wan21-t2v-14b", "--set", "sampler=unipc"], "nearest are uni_pc"),
        (["run", "wan22-i2v", "--set", f"image={FOLDER / 'index.toml'}"], "but this is not a kind of file"),
        (["run", "vace-v2v", "--set", "width=725"], "a multiple of 16; the nearest are 720 and 736"),
        (["show", "vace-t2w"], "did you mean vace-t2v?"),
    ],
)
def test_what_is_asked_wrongly_is_refused_before_comfyui_is_looked_for(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    more = ["--url", "http://127.0.0.1:9"] if words[0] == "run" else []
    if words[1] == "vace-v2v":
        more += ["--set", f"reference={picture(tmp_path)}", "--set", f"video={film(tmp_path)}"]
    assert main(["workflows", *words, *more, "--dir", str(FOLDER)], {}) == 2
    assert said in capsys.readouterr().err
