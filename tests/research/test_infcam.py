"""InfCam: its code is cloned when a person agrees, at the pinned commit alone, and run as its script wants it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hearmeman.cli import main
from hearmeman.errors import UsageError
from hearmeman.models import catalogue
from hearmeman.research import checkout, infcam
from support.ports import free_port
from support.waiting import PATIENCE, wait_for

SCRIPT = """
import argparse, csv, json, pathlib, sys
import wandb
from modelscope import snapshot_download
from unidepth.models import UniDepthV2
parser = argparse.ArgumentParser()
for name in "cam_type ckpt_path camera_extrinsics_path dataset_path metadata_file_name output_dir".split():
    parser.add_argument("--" + name, required=True)
parser.add_argument("--num_frames", type=int); parser.add_argument("--num_inference_steps", type=int)
parser.add_argument("--zoom_factor", type=float, default=1.0); parser.add_argument("--seed", type=int)
parser.add_argument("--k_from_unidepth", action="store_true")
args = parser.parse_args()
if __name__ == "__main__":
    wandb.log({"a": 1})
    try:
        snapshot_download("Wan-AI/Wan2.1-T2V-1.3B")
    except RuntimeError as error:
        refused = str(error)
    for path in (args.ckpt_path, args.camera_extrinsics_path, "models/Wan-AI/Wan2.1-T2V-1.3B/Wan2.1_VAE.pth"):
        open(path).close()
    data = pathlib.Path(args.dataset_path)
    [row] = csv.DictReader(open(data / args.metadata_file_name))
    film = (data / "videos" / row["file_name"]).read_bytes()
    if row["text"] == "crash":
        sys.exit("CUDA out of memory")
    lens = UniDepthV2().infer(Frames(args.num_frames)) if args.k_from_unidepth else None
    folder = pathlib.Path(args.output_dir) / f"cam_type{args.cam_type}"
    folder.mkdir(parents=True)
    told = {"arguments": vars(args), "text": row["text"], "bytes": len(film), "lens": lens, "refused": refused}
    (folder / (row["file_name"].split(".")[0] + ".mp4")).write_text(json.dumps(told))
"""
FRAMES = """
class Frames:
    ndim = 4
    def __init__(self, count): self.count = count
    def __len__(self): return self.count
    def __getitem__(self, part): return Frames(len(range(*part.indices(self.count))))
"""
UNIDEPTH = """
class UniDepthV2:
    def infer(self, rgb, camera=None, normalize=True):
        return {"intrinsics": [len(rgb)], "points": "much"}
"""


@dataclass(frozen=True)
class Upstream:
    """A git server on loopback with the authors' repository."""

    url: str
    commit: str


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    base = tmp_path_factory.mktemp("git")
    repository = base / "InfCam"
    (repository / "unidepth").mkdir(parents=True)
    (repository / "sample_data/cameras").mkdir(parents=True)
    (repository / "inference_infcam.py").write_text(FRAMES + SCRIPT)
    (repository / "torch.py").write_text("def cat(parts): return sum(parts, [])\n")
    (repository / "unidepth/__init__.py").write_text("")
    (repository / "unidepth/models.py").write_text(UNIDEPTH)
    (repository / "sample_data/cameras/camera_extrinsics_10types.json").write_text("{}")
    own = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(repository), *own, *words], check=True, capture_output=True, text=True
        ).stdout

    git("init", "-q", "-b", "main")
    git("add", "-A")
    git("commit", "-qm", "pinned")
    commit = git("rev-parse", "HEAD").strip()
    (repository / "inference_infcam.py").write_text("raise SystemExit('the newest commit was run')\n")
    git("commit", "-qam", "newer")
    port = free_port()
    daemon = [
        "git",
        "daemon",
        "--reuseaddr",
        "--export-all",
        "--listen=127.0.0.1",
        f"--port={port}",
        f"--base-path={base}",
    ]
    process = subprocess.Popen([*daemon, str(base)], stderr=subprocess.DEVNULL)
    url = f"git://127.0.0.1:{port}/InfCam"

    def answers() -> bool:
        return subprocess.run(["git", "ls-remote", url], capture_output=True, check=False).returncode == 0

    try:
        wait_for(answers, "git daemon", over=lambda: process.poll() is not None)
        yield Upstream(url, commit)
    finally:
        process.terminate()
        process.wait(PATIENCE)


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "hall.v2.mp4"
    words = ["-f", "lavfi", "-i", "testsrc=s=64x64:r=16", "-frames:v", "21", "-preset", "ultrafast", str(path)]
    subprocess.run(["ffmpeg", "-v", "error", *words], check=True)
    return path


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {
        "VOLUME_DIR": str(tmp_path / "volume"),
        "MODEL_CATALOGUE": catalogue.__file__.replace(".py", ".toml"),
        "PATH": "/usr/bin:/bin",
    }


def with_models(tmp_path: Path) -> None:
    for name in infcam.FILES:
        path = tmp_path / "volume/ComfyUI/models/infcam" / name
        path.mkdir(parents=True) if name.endswith("xxl") else path.parent.mkdir(parents=True, exist_ok=True)
        if not name.endswith("xxl"):
            path.write_text("weights")


def words(upstream: Upstream, film: Path, *more: str) -> list[str]:
    given = ["--camera", "arc_left", "--prompt", 'a hall, "quoted"', "--frames", "21", "--python", sys.executable]
    return ["run", "infcam", "--video", str(film), *given, "--source", upstream.url, "--commit", upstream.commit, *more]


def test_the_pinned_commit_is_cloned_once_and_makes_a_film_from_what_was_fetched(
    upstream: Upstream, film: Path, environ: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_models(tmp_path)
    assert main(words(upstream, film, "--yes", "--lens", "measure", "--zoom", "1.5", "--seed", "3"), environ) == 0
    said = capsys.readouterr()
    assert "has no licence" in said.err and upstream.url in said.err
    made = Path(said.out.strip())
    assert made == tmp_path / "volume/ComfyUI/output/infcam/hall.v2-arc_left-0001.mp4"
    told = json.loads(made.read_text())
    assert told["arguments"]["cam_type"] == "9" and told["arguments"]["zoom_factor"] == 1.5
    assert told["text"] == 'a hall, "quoted"' and told["bytes"] == film.stat().st_size
    # 21 frames in slices of 8, and nothing but the lens of each.
    assert told["lens"] == {"intrinsics": [8, 8, 5]}
    assert "should have fetched" in told["refused"]
    home = tmp_path / "volume/ComfyUI/infcam"
    assert [path.name for path in home.iterdir()] == [upstream.commit[:12]]
    assert not (home / upstream.commit[:12] / ".git").exists()
    # It is not asked for again, nor cloned: the server could be gone.
    gone = Upstream("git://127.0.0.1:1/gone", upstream.commit)
    assert main(words(gone, film), environ) == 0
    assert json.loads(Path(capsys.readouterr().out.strip()).read_text())["lens"] is None


def test_nothing_is_cloned_without_consent_or_what_it_needs(
    upstream: Upstream, film: Path, environ: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "volume/ComfyUI/infcam"
    assert main(words(upstream, film, "--yes"), environ) == 1
    assert "`hearmeman models fetch infcam`" in capsys.readouterr().err
    with_models(tmp_path)
    assert main(words(upstream, film), environ) == 2
    assert "give --yes if you agree" in capsys.readouterr().err
    assert main([*words(upstream, film, "--yes"), "--frames", "25"], environ) == 2
    assert "it has 21 frames, but 25 are needed" in capsys.readouterr().err
    assert not home.exists()


def test_another_commit_or_none_leaves_nothing(upstream: Upstream, tmp_path: Path) -> None:
    with pytest.raises(checkout.CheckoutError, match="cannot be fetched"):
        checkout.obtain(tmp_path / "home", checkout.Code(upstream.url, "0" * 40), {})
    # A branch's name that leads elsewhere is not taken for the commit.
    with pytest.raises(checkout.CheckoutError, match="gave commit"):
        checkout.obtain(tmp_path / "home", checkout.Code(upstream.url, "main"), {})
    assert list((tmp_path / "home").iterdir()) == []


def test_a_run_that_fails_says_so_and_leaves_no_film(
    upstream: Upstream, film: Path, environ: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_models(tmp_path)
    assert main([*words(upstream, film, "--yes"), "--prompt", "crash"], environ) == 1
    assert "InfCam ended with 1 and without a film" in capsys.readouterr().err
    with contextlib.suppress(FileNotFoundError):
        assert list((tmp_path / "volume/ComfyUI/output/infcam").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"frames": 80}, "it must be 4n\\+1"),
        ({"frames": 85}, "it must be 4n\\+1"),
        ({"zoom": 2.0}, "only with --lens measure"),
        ({"prompt": " "}, "say what the film shows"),
        ({"steps": 0}, "must be above 0"),
    ],
)
def test_a_job_that_cannot_be_done_is_explained(change: dict[str, object], words: str) -> None:
    given = {"video": Path("v.mp4"), "camera": "pan_left", "prompt": "p", "frames": 81, "steps": 20, "seed": 0}
    job = infcam.Job(**{**given, "lens": "24mm", "zoom": 1.0, **change})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=words):
        infcam.check(job, 200)


def test_a_film_that_does_not_fit_leaves_no_part_of_it(tmp_path: Path) -> None:
    """The kernel's own limit of a file's size stands for a full disk."""
    (tmp_path / "film.mp4").write_bytes(bytes(200_000))
    keep = (
        "import pathlib, resource, signal, sys; from hearmeman.research import infcam\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "infcam._keep(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), 'hall')"
    )
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-c", keep, str(tmp_path / "film.mp4"), str(out)], capture_output=True, text=True
    )
    assert done.returncode == 1 and "the film cannot be written to" in done.stderr
    assert list(out.iterdir()) == []
