"""What `hearmeman workflows` advises, followed: with the option, the address or the file that it names, it runs."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import urllib.request
from pathlib import Path

import pytest

from fakes.comfyui import ComfyUI, busy, comfyui
from fakes.remote_pod import RemotePod
from hearmeman.cli import main
from hearmeman.errors import UsageError
from hearmeman.workflows import answers, client, library, run_command
from support.ctrl_c import ctrl_c
from support.repository import ROOT
from support.waiting import PATIENCE, wait_for

FOLDER = ROOT / "workflows"


def run(*words: str, name: str = "smoke-image", **environ: str) -> int:
    return main(["workflows", "run", name, *words], environ)


def test_the_pods_token_is_put_into_its_variable(
    pod: RemotePod, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--dir", str(FOLDER), "--url", pod.url, "--out", str(tmp_path), "--set", "color=41")
    for wrong in ({}, {"ACCESS_TOKEN": "another-token-12"}):
        assert run(*words, **wrong) == 1
        [name] = re.findall(r"set the variable (\w+) to the pod's", capsys.readouterr().err)
        assert name == "ACCESS_TOKEN"
    assert run(*words, **{name: pod.token}) == 0


@pytest.mark.parametrize(
    ("url", "advice", "then"),
    [
        ("https://any:secret@pod.example", "leave the token out of the address", "https://pod.example"),
        ("https://pod.example/?token=secret", "leave the token out of the address", "https://pod.example/"),
        ("http://pod.example:8188", "give an https address", "https://pod.example:8188"),
        ("http://pod.example:8188", "or reach it through SSH (ssh -L 8188:127.0.0.1:8188", "http://127.0.0.1:8188"),
    ],
)
def test_an_address_is_given_that_leaks_no_token(url: str, advice: str, then: str) -> None:
    environ = {"ACCESS_TOKEN": "the-token-of-this-pod"}
    with pytest.raises(UsageError) as caught:
        run_command.address(url, environ)
    assert advice in str(caught.value)
    assert run_command.address(then, environ) == (then, environ["ACCESS_TOKEN"])


def test_comfyuis_own_address_is_given(server: ComfyUI, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--dir", str(FOLDER), "--out", str(tmp_path), "--set", "color=42")
    assert run(*words, COMFYUI_URL="http://127.0.0.1:9") == 1
    assert "or give its address with --url" in capsys.readouterr().err
    assert run(*words, "--url", server.url, COMFYUI_URL="http://127.0.0.1:9") == 0


def test_the_folder_of_the_workflows_is_given(
    server: ComfyUI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--url", server.url, "--out", str(tmp_path), "--set", "color=43")
    assert run("--dir", str(tmp_path), *words) == 1
    assert "give the folder with --dir" in capsys.readouterr().err
    assert run("--dir", str(FOLDER), *words) == 0


def test_a_setting_is_written_as_it_says(server: ComfyUI, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--dir", str(FOLDER), "--url", server.url, "--out", str(tmp_path))
    assert run(*words, "--set", "color 44") == 2
    assert "write it as --set key=value" in capsys.readouterr().err
    assert run(*words, "--set", "color=44") == 0


def test_more_time_is_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--dir", str(FOLDER), "--out", str(tmp_path / "out"))
    with comfyui(tmp_path / "slow", write_seconds=1) as slow:
        assert run(*words, "--url", slow.url, "--set", "color=45", "--timeout", "0.5") == 1
        assert "give more time with --timeout" in capsys.readouterr().err
        assert run(*words, "--url", slow.url, "--set", "color=46", "--timeout", "60") == 0


def test_a_batch_goes_on_or_elsewhere(server: ComfyUI, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "jobs.csv").write_text("color\n47\n48\n")
    words = ["workflows", "batch", "smoke-image", str(tmp_path / "jobs.csv"), "--dir", str(FOLDER), "--url", server.url]
    out = ["--out", str(tmp_path / "out")]
    assert main([*words, *out], {}) == 0
    assert main([*words, *out], {}) == 2
    assert "give --resume to continue it, or another --out" in capsys.readouterr().err
    assert main([*words, *out, "--resume"], {}) == 0
    assert main([*words, "--out", str(tmp_path / "other")], {}) == 0


def test_a_batch_that_ctrl_c_stopped_goes_on_with_resume(
    server: ComfyUI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "jobs.csv").write_text("color,count\n51,1\n52,4\n53,1\n")
    out = tmp_path / "out"
    words = ["workflows", "batch", "smoke-image", str(tmp_path / "jobs.csv"), "--dir", str(FOLDER), "--url", server.url]
    with ctrl_c(lambda: list(out.glob("row-0001*"))):
        assert main([*words, "--out", str(out)], {}) == 130
    [option] = re.findall(
        r"finished rows are kept; run the same command with (\S+) to continue", capsys.readouterr().err
    )
    assert main([*words, "--out", str(out), option], {}) == 0
    assert {path.name[:8] for path in out.glob("row-*")} == {"row-0001", "row-0002", "row-0003"}


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        ({"prompt": {}}, "give only the graph, which is under"),
        ({"nodes": [], "links": []}, "in ComfyUI open it and choose Workflow > Export (API)"),
    ],
)
def test_the_graph_alone_is_given_in_api_format(
    server: ComfyUI, tmp_path: Path, content: dict[str, object], advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = json.loads((FOLDER / "smoke-image.json").read_text())
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({**content, **({"prompt": graph} if "prompt" in content else {})}))
    words = ("--dir", str(FOLDER), "--url", server.url, "--out", str(tmp_path / "out"))
    assert run(*words, name=str(file)) != 0
    assert advice in " ".join(capsys.readouterr().err.split())
    file.write_text(json.dumps(graph))
    assert run(*words, name=str(file)) == 0


def test_a_run_that_was_interrupted_is_run_again(
    server: ComfyUI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    order = ("--dir", str(FOLDER), "--url", server.url, "--out", str(tmp_path), "--set", "count=8")

    def interrupt() -> None:
        wait_for(lambda: busy(server.url), "the run")
        urllib.request.urlopen(urllib.request.Request(f"{server.url}/interrupt", b"{}"), timeout=PATIENCE).close()

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    assert run(*order) == 1
    interrupting.join()
    assert "run it again if that was not meant" in capsys.readouterr().err
    assert run(*order) == 0


def test_a_file_that_is_too_large_is_taken_where_the_limit_is_raised(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(bytes((1 << 20) + 10**5))

    async def upload(url: str) -> str:
        async with client.Client(url) as comfy:
            return await comfy.upload(path)

    raised = pytest.raises(answers.RefusedError, match="raise --max-upload-size in COMFYUI_ARGS")
    with comfyui(tmp_path / "a", more=("--max-upload-size", "1")) as small, raised as caught:
        asyncio.run(upload(small.url))
    [option] = re.findall(r"raise (--\S+)", str(caught.value))
    with comfyui(tmp_path / "b", more=(option, "2")) as larger:
        assert asyncio.run(upload(larger.url)) == "large.png"


def test_the_index_is_corrected(tmp_path: Path) -> None:
    entry = '[[workflow]]\nname = "a"\ntitle = "A"\nfile = "a.json"\n'
    for wrong, advice, right in (
        (entry + "models = []\n" + entry + "models = []\n", "are named a; rename one", entry.replace('"a"', '"b"')),
        (entry, "has no 'models'; add it", ""),
    ):
        (tmp_path / "index.toml").write_text(wrong)
        with pytest.raises(library.LibraryError, match=advice):
            library.load(tmp_path)
        (tmp_path / "index.toml").write_text(f"{entry}models = []\n{right}" + ("models = []\n" if right else ""))
        assert "a" in library.load(tmp_path)
