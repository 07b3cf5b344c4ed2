"""Instance norm with PyTorch's own modules, for the transcriptions.

Not nn.InstanceNorm2d: on a CPU its backward is wrong for an incoming gradient in channels_last at batch 1 (torch 2.14;
tests/test_blocks.py says when that is mended).
"""

from torch import nn


def instance_norm(channels: int) -> nn.Module:
    """No weights, no running statistics; a group norm of one channel a group is the same map."""
    return nn.GroupNorm(channels, channels, affine=False)
