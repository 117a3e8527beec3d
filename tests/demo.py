"""The main job on embedded defaults: build the smoke image, boot it, run a workflow, find the output in the bucket."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from hearmeman_build.build import Image, build_image, prefetch_tier
from hearmeman_build.errors import BuildError
from hearmeman_build.host import WORK
from support.pod import Pod, unpack
from support.ports import free_port

SENTENCE = "Everything works. This sentence was spoken by the pod."
TESTS = Path(__file__).resolve().parent
# A parent that dies by SIGKILL takes these children along.
_LINKED = ["setpriv", "--pdeathsig", "KILL", "--"]


class Phases:
    """Times the demo's phases and tells them as they begin."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def phase(self, name: str, text: str) -> Iterator[None]:
        """One phase."""
        print(f"{name:>9}  {text}", flush=True)
        begun = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - begun


def note(text: str) -> None:
    """One indented line under the current phase."""
    print(f"{'':>9}  {text}", flush=True)


@contextlib.contextmanager
def server(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[str]]:
    """A server of this demo's own, ended with it."""
    with log.open("w") as errors:
        process = subprocess.Popen(
            [*_LINKED, *command],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_port(port: int, process: subprocess.Popen[str], what: str, seconds: float = 120) -> None:
    """Wait until something listens on `port`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise BuildError(f"{what} did not start on port {port}: look at its log in {WORK}")


def remove(folder: Path) -> None:
    """Delete what a run made, if it got that far."""
    if folder.exists():
        shutil.rmtree(folder)


def no_interrupts() -> None:
    """From now on Ctrl-C and SIGTERM do nothing."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def interrupt(number: int, frame: object) -> None:
    """End the run; a second Ctrl-C does not cut the clearing up short."""
    no_interrupts()
    raise KeyboardInterrupt


def sha256(path: Path) -> str:
    """A file's sha256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def copy_of(output: Path, bucket: Path) -> str | None:
    """The key of the object that holds the same bytes as `output`."""
    wanted = sha256(output)
    for path in bucket.rglob(f"*{output.suffix}"):
        # rclone renames a file that it is still writing: that is no object yet.
        with contextlib.suppress(FileNotFoundError):
            if sha256(path) == wanted:
                return str(path.relative_to(bucket))
    return None


def answers(url: str) -> bool:
    """Whether `url` answers."""
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def demo(speaks: bool) -> None:
    """Run all phases and print the table."""
    tier = "smoke-voice" if speaks else "smoke"
    phases = Phases()
    WORK.mkdir(exist_ok=True)
    begun = time.monotonic()
    with phases.phase("prefetch", "pinned packages and wheels into the Nix store, checked against the locks"):
        prefetch_tier(tier, note)
    voice = ", a voice" if speaks else ""
    with phases.phase("build", f"the smoke image: userland, Python environment, stand-in ComfyUI, hearmeman{voice}"):
        image = build_image(tier)
        note(f"{image.digest}, {len(image.layers)} layers, {image.size / 1e6:.0f} MB")
    with phases.phase("unpack", "the image's layers into a root filesystem"):
        unpack(image)
    keys = run_pod(image, phases, speaks)
    print_table(image, phases, keys, time.monotonic() - begun)


def run_pod(image: Image, phases: Phases, speaks: bool) -> list[str]:
    """Boot the image against a Hub and a bucket on loopback, make a picture and a sentence, stop; the outputs' keys."""
    with contextlib.ExitStack() as stack:
        folder = WORK / f"demo-{os.getpid()}"
        # Before it is made, so that no moment is left in which it is nobody's.
        stack.callback(remove, folder)
        volume, bucket = folder / "volume", folder / "s3" / "runpod"
        volume.mkdir(parents=True)
        bucket.mkdir(parents=True)
        access, secret = secrets.token_hex(8), secrets.token_hex(16)
        port, page_port, s3_port, voice_port, chatter_port = (free_port() for _ in range(5))
        opens = os.environ.get("OPEN", "") not in ("", "0")
        with phases.phase("servers", "a Hugging Face Hub and an S3 server (rclone) on loopback"):
            rclone = Path(sysconfig.get_path("scripts")) / "rclone"
            s3_command = [str(rclone), "serve", "s3", "--addr", f"127.0.0.1:{s3_port}", str(bucket.parent)]
            s3 = stack.enter_context(
                server(s3_command, {"RCLONE_AUTH_KEY": f'"{access},{secret}"', "RCLONE_CONFIG": ""}, folder / "s3.log")
            )
            hub_command = [sys.executable, str(TESTS / "fakes" / "hub.py"), "--port", "0"]
            hub = stack.enter_context(server(hub_command, {}, folder / "hub.log"))
            line = hub.stdout.readline() if hub.stdout else ""
            if not line:
                raise BuildError("the demo's Hub did not start: " + (folder / "hub.log").read_text()[-500:])
            hub_port = json.loads(line)["port"]
            wait_port(s3_port, s3, "the S3 server")
        pod = Pod(image, volume, say=lambda text: note(f"| {text}"))
        stack.callback(pod.kill)
        with phases.phase("boot", "the pod: hearmeman boot under tini"):
            pod.start(
                {
                    "COMFYUI_HOST": "127.0.0.1",
                    "STATUS_HOST": "127.0.0.1",
                    "COMFYUI_PORT": str(port),
                    "STATUS_PORT": str(page_port),
                    "ENABLE_XTTS": str(speaks).lower(),
                    "XTTS_PORT": str(voice_port),
                    # One API says the sentence; whoever looks around has both.
                    "ENABLE_CHATTERBOX": str(speaks and opens).lower(),
                    "CHATTERBOX_PORT": str(chatter_port),
                    "HF_ENDPOINT": f"http://127.0.0.1:{hub_port}",
                    "ENABLE_R2_SYNC": "true",
                    "R2_ENDPOINT": f"http://127.0.0.1:{s3_port}",
                    "R2_ACCESS_KEY_ID": access,
                    "R2_SECRET_ACCESS_KEY": secret,
                }
            )
            pod.wait_for(lambda: answers(f"http://127.0.0.1:{port}/system_stats"), "ComfyUI")
        with phases.phase("models", "the enabled model, beside ComfyUI"):
            model = volume / "ComfyUI/models/checkpoints/tiny.safetensors"
            pod.wait_for(model.is_file, "the model")
            note(f"{model.relative_to(volume)}: {model.stat().st_size / 1e6:.1f} MB, verified")
        with phases.phase("workflow", "hearmeman workflows run smoke-image"):
            url = f"http://127.0.0.1:{port}"
            command = pod.command(
                "/opt/env/runtime/bin/hearmeman",
                "workflows",
                "run",
                "smoke-image",
                "--url",
                url,
                "--set",
                "color=3368703",
            )
            if subprocess.run([*_LINKED, *command], stdin=subprocess.DEVNULL).returncode != 0:
                raise BuildError("the workflow failed: its message is above")
        outputs = [next((volume / "ComfyUI/output").rglob("*.png"))]
        if speaks:
            with phases.phase("voice", f"xtts-vo-gen {SENTENCE!r}"):
                outputs.append(say(pod, voice_port))
        with phases.phase("bucket", "the outputs in the bucket"):
            keys = []
            for output in outputs:
                pod.wait_for(lambda made=output: copy_of(made, bucket) is not None, f"{output.name} in the bucket")  # type: ignore[misc]
                keys.append(f"s3://runpod/{copy_of(output, bucket)}")
                note(keys[-1])
        with phases.phase("page", "the pod's own page"):
            page = f"http://127.0.0.1:{page_port}/"
            pod.wait_for(lambda: answers(page), "the page")
            note(page)
        if opens:
            shown = {"the pod's page": page, "ComfyUI's API": url}
            if speaks:
                # Their pages offer examples that can be sent as they stand.
                shown["XTTS' API"] = f"http://127.0.0.1:{voice_port}/docs"
                shown["Chatterbox's API"] = f"http://127.0.0.1:{chatter_port}/docs"
            keep_open(pod, shown)
        with phases.phase("stop", "SIGTERM: ComfyUI first, then the sync drains"):
            code = pod.stop()
            if code != 0:
                raise BuildError(f"the pod ended with {code} instead of 0")
        # All is done but the clearing up, which an interrupt would only leave half done.
        no_interrupts()
    return keys


def keep_open(pod: Pod, shown: Mapping[str, str]) -> None:
    """Let a person look around until Ctrl-C; `shown` is what there is, and where."""
    lines = "\n".join(f"  {name:16} {address}" for name, address in shown.items())
    print(f"\n{lines}\n\nCtrl-C stops the pod and goes on.\n", flush=True)
    stopped = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopped
        stopped = True

    before = signal.signal(signal.SIGINT, stop)
    try:
        while not stopped:
            if pod.process is None or pod.process.poll() is not None:
                raise BuildError("the pod ended by itself: its lines above say why")
            time.sleep(0.2)
    finally:
        signal.signal(signal.SIGINT, before)


def say(pod: Pod, port: int) -> Path:
    """Let the pod's voice API speak one sentence into the output folder; the file."""
    url = f"http://127.0.0.1:{port}"
    pod.wait_for(lambda: answers(f"{url}/ready"), "the voice API")
    file = "ComfyUI/output/voice/hello.wav"
    (pod.volume / file).parent.mkdir(parents=True, exist_ok=True)
    command = pod.command("/xtts-vo-gen.py", SENTENCE, "-o", f"/workspace/{file}", "--url", url)
    if subprocess.run([*_LINKED, *command], stdin=subprocess.DEVNULL).returncode != 0:
        raise BuildError("the voice API did not speak: its message is above")
    return pod.volume / file


def print_table(image: Image, phases: Phases, keys: list[str], total: float) -> None:
    """The figures at the end."""
    rows = [
        ("digest", image.digest),
        ("image", f"{image.size / 1e6:.1f} MB in {len(image.layers)} layers"),
        ("seconds", ", ".join(f"{name} {value:.1f}" for name, value in phases.seconds.items())),
        ("total", f"{total:.1f} s"),
        *(("output", key) for key in keys),
        ("layout", str(image.layout)),
        ("its page", "make demo OPEN=1 keeps the pod until Ctrl-C and shows the address"),
        ("for a GPU pod", "make image TIER=consumer"),
        ("deploy it", "docs/runpod.md, from nothing to a finished picture or video"),
    ]
    print()
    for name, value in rows:
        print(f"{name:>14}  {value}")


def main() -> int:
    """Run the demo; 130 on Ctrl-C, with everything that it started ended."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--silent", action="store_true", help="leave the voice out, which is a third of the time")
    args = arguments.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        demo(not args.silent)
    except KeyboardInterrupt:
        print("\nstopped; nothing is left running", file=sys.stderr)
        return 130
    except (BuildError, TimeoutError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
