"""Finds a bad machine before it costs: GPU, its errors, disk and network are tried beside each other, within seconds."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hearmeman.terminal import rate

SECONDS = 20.0
"""What all of it may take."""
DISK_BYTES = 128 * 1024**2
SLOW_DISK = 50e6
"""Bytes per second; below this a model of 20 GB takes minutes to load."""
HUB_BYTES = 16 * 1024**2
SLOW_HUB = 5e6
_HUB_FILE = "/openai-community/gpt2/resolve/main/model.safetensors"
"""A public file that has been there for years."""
_STEPS = {
    "import": "starting torch",
    "allocate": "filling memory",
    "matmul": "multiplying matrices",
    "sage": "trying SageAttention",
}


@dataclass(frozen=True)
class Finding:
    """What one look at the machine showed."""

    name: str
    """What was looked at."""
    ok: bool | None
    """Whether it is sound; None where that could not be found out."""
    what: str
    """For a person, in one sentence."""


def gpu(argv: Sequence[str], seconds: float = SECONDS, environ: Mapping[str, str] | None = None) -> list[Finding]:
    """Run gpu_probe.py by `argv` and read what it says, however it ends."""
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryFile() as said:
        # Compiled kernels are of no use to anybody else.
        env = {**(os.environ if environ is None else environ), "TRITON_CACHE_DIR": cache}
        try:
            child = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.DEVNULL, env=env, start_new_session=True
            )
        except OSError as error:
            return [Finding("gpu", None, f"ComfyUI's Python {argv[0]} cannot be started: {error.strerror}")]
        try:
            code: int | None = child.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            # Also what it started: compilers of Triton.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        said.seek(0)
        return read_probe(said.read().decode(errors="replace").splitlines(), code, seconds)


def read_probe(lines: Iterable[str], code: int | None, seconds: float) -> list[Finding]:
    """Make findings of the probe's lines; `code` is its exit code, negative for a signal, None where it was cut."""
    done: list[Finding] = []
    under_way = ""
    for line in lines:
        try:
            said = json.loads(line)
            step = str(said["step"])
        except (ValueError, KeyError, TypeError):
            continue  # Libraries print to standard output too.
        if "ok" not in said:
            under_way = step
            continue
        under_way = ""
        name = "sage" if step == "sage" else "gpu"
        # Without torch nothing is known of the GPU.
        ok = (
            None
            if step == "import" and not said["ok"] and "sees no GPU" not in str(said.get("what"))
            else bool(said["ok"])
        )
        done.append(Finding(name, ok, f"{_STEPS.get(step, step)}: {said.get('what', '')}"))
    if under_way or not done:
        name = "sage" if under_way == "sage" else "gpu"
        where = _STEPS.get(under_way, "starting")
        if code is None:
            done.append(Finding(name, False, f"{where}: no answer within {seconds:g} s"))
        elif code < 0:
            done.append(Finding(name, False, f"{where}: it died with {signal.Signals(-code).name}"))
        else:
            done.append(Finding(name, False if under_way else None, f"{where}: it ended with {code} and said nothing"))
    return done


def errors() -> list[Finding]:
    """Ask NVML for memory errors that ECC could not correct, and for rows that wait for a reset."""
    from hearmeman.tune import machine

    seen = machine.nvidia()
    if not seen.gpus:
        return []
    import pynvml

    found = []
    pynvml.nvmlInit()
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            card = pynvml.nvmlDeviceGetHandleByIndex(index)
            found.append(_ecc(pynvml, card, index))
    except pynvml.NVMLError as error:
        found.append(Finding("ecc", None, f"the driver does not say ({error})"))
    finally:
        pynvml.nvmlShutdown()
    return found


def _ecc(nvml: object, card: object, index: int) -> Finding:
    import pynvml

    wrong, known = [], False
    try:
        kinds = (pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC)
        count = int(pynvml.nvmlDeviceGetTotalEccErrors(card, *kinds))
        known = True
        wrong += [f"{count} memory errors that ECC could not correct"] if count else []
    except pynvml.NVMLError:
        pass  # Cards for games have no ECC.
    try:
        _, _, pending, failure = pynvml.nvmlDeviceGetRemappedRows(card)
        known = True
        wrong += ["memory rows wait for a reset of the GPU"] if pending else []
        wrong += ["memory rows could not be replaced"] if failure else []
    except pynvml.NVMLError:
        pass
    if wrong:
        return Finding("ecc", False, f"GPU {index} has {' and '.join(wrong)}: use another pod")
    return Finding(
        "ecc", True if known else None, f"GPU {index} " + ("has no memory error" if known else "counts none")
    )


_XID = re.compile(r"NVRM: Xid \(([^)]*)\): (\d+)")


def xids(kernel_log: str) -> Finding:
    """Find the driver's error reports in the kernel's log."""
    found = sorted({int(number) for _, number in _XID.findall(kernel_log)})
    if found:
        numbers = ", ".join(map(str, found))
        return Finding("xid", False, f"the driver reported the GPU errors Xid {numbers}: use another pod")
    return Finding("xid", True, "the driver reported no GPU error")


def read_xids(kmsg: Path = Path("/dev/kmsg")) -> Finding:
    """Read the kernel's log, where a container may."""
    text = b""
    try:
        descriptor = os.open(kmsg, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        return Finding("xid", None, f"the kernel's log cannot be read here ({error.strerror})")
    try:
        end = time.monotonic() + 3
        while time.monotonic() < end and (part := os.read(descriptor, 65536)):
            text += part
    except OSError:
        pass  # The end of the log, or a line that was overwritten meanwhile.
    finally:
        os.close(descriptor)
    return xids(text.decode(errors="replace"))


def disk(folder: Path, size: int = DISK_BYTES) -> Finding:
    """Write, sync and read back a file in the models folder."""
    block = os.urandom(1024**2)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".hearmeman-check-") as file:
            began = time.monotonic()
            for _ in range(size // len(block)):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            written = time.monotonic() - began
            # Else the file would be read from memory.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(0)
            began = time.monotonic()
            while part := file.read(len(block)):
                if part != block:
                    return Finding("disk", False, f"{folder} returned other bytes than were written")
            read = time.monotonic() - began
    except OSError as error:
        return Finding("disk", None, f"{folder} cannot be tested: {error.strerror}")
    slowest = size / max(written, read, 1e-6)
    speeds = f"{folder} writes {rate(size / max(written, 1e-6))} and reads {rate(size / max(read, 1e-6))}"
    return Finding(
        "disk", slowest >= SLOW_DISK, speeds + ("" if slowest >= SLOW_DISK else ": models load slowly from it")
    )


def hub(endpoint: str, seconds: float = 8.0, size: int = HUB_BYTES) -> Finding:
    """Read the beginning of a public file of the Hub, without a token."""
    import urllib3

    pool = urllib3.PoolManager(retries=urllib3.Retry(0, redirect=5), timeout=urllib3.Timeout(connect=5, read=5))
    began, got = time.monotonic(), 0
    try:
        answer = pool.request(
            "GET", endpoint + _HUB_FILE, headers={"Range": f"bytes=0-{size - 1}"}, preload_content=False
        )
        try:
            if answer.status not in (200, 206):
                return Finding("hub", None, f"{endpoint} answers {answer.status}: its speed is not known")
            began = time.monotonic()
            while got < size and time.monotonic() - began < seconds and (part := answer.read(65536)):
                got += len(part)
        finally:
            answer.close()
    except urllib3.exceptions.HTTPError as error:
        return Finding(
            "hub", False, f"{endpoint} does not answer ({type(error).__name__}): models cannot be fetched from it"
        )
    speed = got / max(time.monotonic() - began, 1e-6)
    return Finding("hub", speed >= SLOW_HUB, f"one connection to {endpoint} reaches {rate(speed)}")


def all_of(looks: Iterable[Callable[[], Finding | list[Finding]]]) -> list[Finding]:
    """Look at everything at one time; a look that fails is a finding too."""

    def one(look: Callable[[], Finding | list[Finding]]) -> list[Finding]:
        try:
            found = look()
        except Exception as error:
            return [Finding("check", None, f"checking the machine failed ({type(error).__name__}: {error})")]
        return found if isinstance(found, list) else [found]

    looks = list(looks)
    with ThreadPoolExecutor(max(1, len(looks))) as pool:
        return [finding for found in pool.map(one, looks) for finding in found]
