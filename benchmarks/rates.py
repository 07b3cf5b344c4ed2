"""What the machine gives: GFLOP/s of convolution and matrix product, GB/s of a copy. Floors are counted in these."""

import torch
import torch.nn.functional as F

from benchmarks.compare import bf16_hardware, in_turns

STUDY = {"convolution": 500.0, "product": 187.0, "memory": 36.0}  # of the machine that the targets were measured on


def measure(threads: int = 2) -> dict[str, float]:
    """GFLOP/s of a 3x3 convolution of 256 channels at 64x64 (channels_last) and of a 1024 product, float32 and, where
    the hardware has it, bf16; GB/s read and written by a copy of 256 MB."""
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    types = {"": torch.float32, **({" bf16": torch.bfloat16} if bf16_hardware() else {})}
    functions, work = {}, {}
    for suffix, dtype in types.items():
        x = torch.randn(1, 256, 64, 64, device=device, dtype=dtype).to(memory_format=torch.channels_last)
        w = torch.randn(256, 256, 3, 3, device=device, dtype=dtype).to(memory_format=torch.channels_last)
        functions["convolution" + suffix] = lambda x=x, w=w: F.conv2d(x, w, padding=1)
        work["convolution" + suffix] = 2 * 256 * 256 * 9 * 64 * 64
        a = torch.randn(1024, 1024, device=device, dtype=dtype)
        functions["product" + suffix] = lambda a=a: a @ a
        work["product" + suffix] = 2 * 1024**3
    block = torch.ones(2**26, device=device)
    other = torch.empty_like(block)
    functions["memory"] = lambda: other.copy_(block)
    work["memory"] = 2 * 4 * 2**26
    with torch.no_grad():
        seconds = in_turns(functions, 7)
    return {name: work[name] / seconds[name] / 1e9 for name in functions}
