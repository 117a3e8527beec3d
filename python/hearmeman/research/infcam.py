"""Runs InfCam's script: its folders, its arguments and the film it makes."""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hearmeman.errors import HearmemanError, UsageError

CAMERAS = {
    name: number
    for number, name in enumerate(
        (
            "pan_right",
            "pan_left",
            "tilt_up",
            "tilt_down",
            "zoom_in",
            "zoom_out",
            "translate_up",
            "translate_down",
            "arc_left",
            "arc_right",
        ),
        start=1,
    )
}
"""Name -> its number in the authors' file of ten paths."""
FILES = (
    "InfCam/step35000.ckpt",
    "Wan-AI/Wan2.1-T2V-1.3B/diffusion_pytorch_model.safetensors",
    "Wan-AI/Wan2.1-T2V-1.3B/models_t5_umt5-xxl-enc-bf16.pth",
    "Wan-AI/Wan2.1-T2V-1.3B/Wan2.1_VAE.pth",
    "Wan-AI/Wan2.1-T2V-1.3B/google/umt5-xxl",
    "unidepth-v2-vitl14/model.safetensors",
)
"""The files that the script loads, below models/infcam."""
RUNNER = Path(__file__).with_name("infcam_runner.py")


class InfCamError(HearmemanError):
    """InfCam ended without a film."""


@dataclass(frozen=True)
class Job:
    """One film to make."""

    video: Path
    camera: str
    """A name of CAMERAS."""
    prompt: str
    frames: int
    """4n+1, at most 81: the authors' paths have no more."""
    steps: int
    seed: int
    lens: str
    """24mm, or measure."""
    zoom: float


def check(job: Job, there: int) -> None:
    """Check a job against the `there` frames of its film; the script itself would crash.

    Raises:
        UsageError: it cannot be done.
    """
    if not 5 <= job.frames <= 81 or job.frames % 4 != 1:
        raise UsageError(f"--frames {job.frames}: it must be 4n+1, from 5 to 81")
    if there < job.frames:
        raise UsageError(
            f"--video {job.video}: it has {there} frames, but {job.frames} are needed: give --frames, or a longer film"
        )
    if job.steps < 1 or job.seed < 0 or not job.zoom > 0:
        raise UsageError("--steps and --zoom must be above 0, --seed 0 or more")
    if not job.prompt.strip():
        raise UsageError("--prompt: say what the film shows")
    if job.zoom != 1.0 and job.lens != "measure":
        raise UsageError("--zoom has an effect only with --lens measure")


def words(job: Job, code: Path) -> list[str]:
    """The script's arguments; paths are relative to the folder it runs in."""
    found = ["--cam_type", str(CAMERAS[job.camera]), "--ckpt_path", "models/InfCam/step35000.ckpt"]
    found += ["--camera_extrinsics_path", str(code / "sample_data/cameras/camera_extrinsics_10types.json")]
    found += ["--dataset_path", "data", "--metadata_file_name", "metadata.csv", "--output_dir", "results"]
    found += ["--num_frames", str(job.frames), "--num_inference_steps", str(job.steps), "--seed", str(job.seed)]
    return found + (["--k_from_unidepth", "--zoom_factor", str(job.zoom)] if job.lens == "measure" else [])


def execute(
    job: Job, code: Path, home: Path, models: Path, out: Path, python: str | None, environ: Mapping[str, str]
) -> Path:
    """Run the script in its own folder below `home`, and put its film into `out`; returns the film's path.

    `python` is an interpreter with ComfyUI's packages; None takes ComfyUI's own, as ComfyUI's user.

    Raises:
        InfCamError: it ended without a film; its own words are above.
    """
    command = [python] if python else [sys.executable, "-P", "-m", "hearmeman", "as-comfyui", "--", "python"]
    with tempfile.TemporaryDirectory(prefix=".run-", dir=home) as place:
        folder = Path(place)
        (folder / "models").symlink_to(models)
        (folder / "data/videos").mkdir(parents=True)
        # The script takes everything before the first dot as the film's name.
        (folder / "data/videos/film.mp4").symlink_to(job.video)
        with (folder / "data/metadata.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("file_name", "text"), ("film.mp4", job.prompt)])
        done = subprocess.run(
            [*command, str(RUNNER), str(code), *words(job, code)], cwd=folder, env=environ, check=False
        )
        made = folder / f"results/cam_type{CAMERAS[job.camera]}/film.mp4"
        if done.returncode != 0 or not made.is_file() or not made.stat().st_size:
            raise InfCamError(
                f"InfCam ended with {done.returncode} and without a film; its last lines are above. Out of "
                "memory: fewer "
                "--frames, or without --lens measure; `hearmeman restart comfyui` frees what ComfyUI holds of the GPU"
            )
        return _keep(made, out, f"{job.video.stem}-{job.camera}")


def _keep(made: Path, out: Path, name: str) -> Path:
    """Move a film to an unused name, completely or not at all."""
    part = out / f".{name}.{os.getpid()}.part"
    try:
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made, part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        for number in range(1, 10000):
            target = out / f"{name}-{number:04}.mp4"
            if not target.exists():
                part.rename(target)
                return target
        raise InfCamError(f"{out} has too many films with that name")
    except OSError as error:
        raise InfCamError(f"the film cannot be written to {out}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
