"""SageAttention for ComfyUI where it was tried and works; decided each time ComfyUI starts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from hearmeman.log import log
from hearmeman.state_file import read_json

FLAG = "--use-sage-attention"
WAIT_SECONDS = 40.0
"""What ComfyUI's first start waits for the try; it takes 20 s at most, beside starting torch."""
_OTHERS = (
    *("--use-split-cross-attention", "--use-quad-cross-attention", "--use-pytorch-cross-attention"),
    *("--use-flash-attention", "--use-ck-attention", "--cpu"),
)


def arguments(argv: Sequence[str], environ: Mapping[str, str], wait: float = WAIT_SECONDS) -> list[str]:
    """Give the flag if SAGE_ATTENTION asks for it, nothing in `argv` excludes it, and the try went well; else say why not."""
    from hearmeman.settings.values import TRUE, cleaned

    if cleaned(environ.get("SAGE_ATTENTION", "")).casefold() not in TRUE or FLAG in argv:
        return []
    clash = sorted(set(argv) & set(_OTHERS))
    if clash:
        log("sage.not_used", why=f"ComfyUI is started with {clash[0]}")
        return []
    volume, pod = environ.get("VOLUME_DIR") or "/workspace", environ.get("RUNPOD_POD_ID") or "local"
    report = Path(environ.get("STATE_DIR") or f"{volume}/.hearmeman/{pod}") / "machine.json"
    end = time.monotonic() + wait
    while not (found := read_json(report)) and time.monotonic() < end:
        time.sleep(0.2)
    sage = [finding for finding in found.get("findings", []) if finding.get("name") == "sage"]
    if sage and sage[-1].get("ok"):
        log("sage.used", what=sage[-1].get("what"))
        return [FLAG]
    why = sage[-1].get("what") if sage else "it was not tried: `hearmeman status` shows what is known about the GPU"
    log("sage.not_used", why=why, means="ComfyUI uses torch's own attention")
    return []
