"""Keeps a GPU busy in four ways, and says on stdout when each began and ended (one JSON line each)."""

import json
import sys
import time
from collections.abc import Callable

import torch

SECONDS = 6.0


def phase(name: str, step: Callable[[], int]) -> None:
    """Repeats `step`, which returns the bytes that it sent to the GPU over PCIe."""
    torch.cuda.synchronize()
    start, sent = time.time(), 0
    while time.time() - start < SECONDS:
        sent += step()
        torch.cuda.synchronize()
    print(json.dumps({"phase": name, "start": start, "end": time.time(), "bytes": sent}), flush=True)


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("torch sees no GPU")
    left = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    product = torch.empty_like(left)
    big = torch.empty(2**30, device="cuda", dtype=torch.float32)
    host = torch.empty(2**30, dtype=torch.uint8).pin_memory()
    target = torch.empty(2**30, device="cuda", dtype=torch.uint8)

    def matmul() -> int:
        for _ in range(50):
            torch.matmul(left, left, out=product)
        return 0

    def memory() -> int:
        for _ in range(20):
            big.add_(1.0)
        return 0

    def pcie() -> int:
        for _ in range(10):
            target.copy_(host, non_blocking=True)
        return 10 * host.numel()

    def idle() -> int:
        time.sleep(0.5)
        return 0

    for name, step in (("matmul", matmul), ("memory", memory), ("pcie", pcie), ("idle", idle)):
        phase(name, step)


if __name__ == "__main__":
    main()
