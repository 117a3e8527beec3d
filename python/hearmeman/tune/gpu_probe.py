"""Tries the GPU with ComfyUI's own torch: one JSON line before and after each step, so that a crash says where it was.

Run by its path with ComfyUI's Python; it imports nothing of ours. Given words, it takes only those steps.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

MIB = 1024**2


def allocate(torch: Any) -> str:
    """Fill a quarter of the free memory, 4 GiB at most, and read it back."""
    free, total = torch.cuda.mem_get_info()
    size = min(free // 4, 4096 * MIB) // 4
    block = torch.full((size,), 0x5A5A5A5A, dtype=torch.int32, device="cuda")
    wrong = int((block != 0x5A5A5A5A).sum())
    if wrong:
        raise ValueError(f"{wrong} of {size} words came back changed")
    return f"{size * 4 // MIB} MiB of {total // MIB} MiB filled and read back"


def matmul(torch: Any) -> str:
    """Multiply matrices and compare with the CPU's result; give the speed."""
    generator = torch.Generator().manual_seed(0)
    one, two = (torch.randn(2048, 2048, generator=generator) for _ in range(2))
    left, right = one.half().cuda(), two.half().cuda()
    error = float(((left @ right).float().cpu()[:64] - one.half().float()[:64] @ two.half().float()).abs().max())
    if not error < 1.0:
        raise ValueError(f"the product differs from the CPU's by {error:g}")
    torch.cuda.synchronize()
    began = time.monotonic()
    for _ in range(20):
        left @ right
    torch.cuda.synchronize()
    return f"{20 * 2 * 2048**3 / (time.monotonic() - began) / 1e12:.1f} TFLOPS in fp16"


def sage(torch: Any) -> str:
    """Compare SageAttention with torch's own attention; its kernels are compiled here."""
    from sageattention import sageattn  # type: ignore[import-not-found]

    generator = torch.Generator(device="cuda").manual_seed(0)
    q, k, v = (torch.randn(1, 8, 1024, 64, generator=generator, device="cuda").half() for _ in range(3))
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    error = float((sageattn(q, k, v) - wanted).float().abs().mean())
    if not error < 0.01:
        raise ValueError(f"its result differs from torch's by {error:g} on average")
    return f"its result differs from torch's by {error:.1e} on average"


STEPS: dict[str, Callable[[Any], str]] = {"allocate": allocate, "matmul": matmul, "sage": sage}


def say(step: str, **facts: object) -> None:
    """Write one line, at once."""
    print(json.dumps({"step": step, **facts}), flush=True)


def main(names: list[str]) -> int:
    """Take the steps; 1 where one failed."""
    failed = False
    say("import")
    began = time.monotonic()
    try:
        import torch
    except Exception as error:
        say("import", ok=False, what=f"{type(error).__name__}: {error}")
        return 1
    if not torch.cuda.is_available():
        say("import", ok=False, what="torch sees no GPU")
        return 1
    say("import", ok=True, seconds=time.monotonic() - began, what=str(torch.cuda.get_device_name()))
    for name in names or list(STEPS):
        say(name)
        began = time.monotonic()
        try:
            what = STEPS[name](torch)
        except Exception as error:
            failed = True
            say(name, ok=False, seconds=time.monotonic() - began, what=f"{type(error).__name__}: {error}"[:500])
        else:
            say(name, ok=True, seconds=time.monotonic() - began, what=what)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
