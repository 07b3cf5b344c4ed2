"""Blurred halving and bilinear doubling: known answers, slow twins, gradients; sizes that a network takes."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.resampling import BlurDownsample, Upsample, check_size

blur, upsample = BlurDownsample(), Upsample()


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_blur_of_a_known_map():
    found = blur(torch.arange(16.0).view(1, 1, 4, 4))
    torch.testing.assert_close(found[0, 0], torch.tensor([[2.5, 4], [8.5, 10]]), rtol=0, atol=0)


def test_upsampling_of_a_known_map():
    found = upsample(torch.arange(4.0).view(1, 1, 2, 2))
    assert found[0, 0, 0].tolist() == [0, 0.25, 0.75, 1]


def mirrored(place: int, side: int) -> int:
    return -place if place < 0 else 2 * (side - 1) - place if place >= side else place


@pytest.mark.parametrize(("height", "width"), [(6, 8), (7, 4), (2, 3), (5, 5)])
def test_blur_equals_its_slow_twin(height: int, width: int):
    x = draw(2, 3, height, width)
    found = blur(x)
    assert found.shape == (2, 3, (height + 1) // 2, (width + 1) // 2)
    for row in range(found.shape[2]):
        for column in range(found.shape[3]):
            total = torch.zeros(2, 3, dtype=torch.float64)
            for i, down in enumerate([1, 2, 1]):
                for j, right in enumerate([1, 2, 1]):
                    y, z = mirrored(2 * row + i - 1, height), mirrored(2 * column + j - 1, width)
                    total += down * right / 16 * x[:, :, y, z]
            torch.testing.assert_close(found[:, :, row, column], total)


@pytest.mark.parametrize(("height", "width"), [(6, 8), (7, 4), (2, 3), (5, 5)])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_gradient_of_the_blur(height: int, width: int, order: torch.memory_format):
    x = draw(2, 3, height, width).contiguous(memory_format=order).requires_grad_()
    assert torch.autograd.gradcheck(blur, x)
    found = blur(x)
    assert found.is_contiguous(memory_format=order)
    grad = torch.autograd.grad(found, x, torch.ones_like(found))[0]
    assert grad.is_contiguous(memory_format=order)


def test_upsampling_equals_the_transposed_convolution_of_cut():
    x = draw(2, 3, 5, 4)
    taps = torch.tensor([1.0, 3, 3, 1], dtype=torch.float64)
    weight = (taps[:, None] * taps / 16).expand(3, 1, 4, 4)
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    torch.testing.assert_close(upsample(x), F.conv_transpose2d(padded, weight, None, 2, 3, 0, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_autocast_the_gradient_keeps_the_dtype_of_the_input(dtype: torch.dtype):
    x = draw(1, 4, 8, 8)
    wanted = torch.autograd.grad(blur(x.requires_grad_()).square().sum(), x)[0]
    x = x.detach().to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = blur(x)
    found.square().sum().backward()
    assert x.grad is not None and x.grad.dtype == dtype
    torch.testing.assert_close(x.grad.double(), wanted, rtol=0.02, atol=0.02)


def test_sizes_are_refused_with_the_nearest_legal_ones():
    check_size(64, 32, 32, "it")
    check_size(8, 12, 4, "it", smallest=8)
    with pytest.raises(
        ValueError, match=r"size 100x64 \(height x width\): it needs multiples of 32, such as 96x64 or 1"
    ):
        check_size(100, 64, 32, "it")
    with pytest.raises(ValueError, match=r"such as 32x64$"):
        check_size(16, 16, 32, "it", positions=2)
    with pytest.raises(ValueError, match=r"multiples of 4 from 8 on, such as 8x8 or 8x12$"):
        check_size(4, 10, 4, "it", smallest=8)
    with pytest.raises(ValueError, match=r"such as 32x32$"):
        check_size(0, 32, 32, "it")
