"""CFL's loss, forward and backward: `python -m benchmarks.cfl_loss [rounds=5] [threads=2] [small=1] [only=WORD]`.

One 512x256 image, five layers of a frozen VGG19 (random weights here), both directions, 1024 patches, linear heads;
gradients to the generated image and to the heads. Both sides draw the same patches.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import plain_cfl
from benchmarks.compare import Item, bf16_hardware, main
from benchmarks.gradients import difference
from losses.comparison import Comparison
from losses.contrastive import PatchNCE
from losses.objective import Views
from models.backbones import vgg19

Step = Callable[[], tuple[Tensor, ...]]


def parts(patches: int) -> tuple[torch.nn.Module, Comparison]:
    """Encoder and term of objective=contrast_gan, encoder=vgg19."""
    encoder = vgg19(pretrained=False)
    loss = PatchNCE(bidirectional=True)
    return encoder, Comparison(loss, [["fake", "target"]], encoder.channels, encoder.map_channels, patches)


def ours(
    encoder: torch.nn.Module, term: Comparison, fake: Tensor, target: Tensor, last: bool, bf16: bool = False
) -> Step:
    """A function that gives the loss and its gradients, in train.py's layout and precision."""
    layout = torch.channels_last if last else torch.contiguous_format
    encoder.to(memory_format=layout)
    fake = fake.to(memory_format=layout).detach().requires_grad_()
    target = target.to(memory_format=layout)
    given = [fake, *term.parameters()]

    def step() -> tuple[Tensor, ...]:
        for tensor in given:
            tensor.grad = None
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            value = term(Views(encoder, {"fake": fake, "target": target}, torch.Generator().manual_seed(0)))
        value.backward()  # the counter of operations in `floor` cannot follow autograd.grad
        return (value.detach(), *(tensor.grad for tensor in given if tensor.grad is not None))

    return step


def transcription(plain: plain_cfl.Loss, fake: Tensor, target: Tensor) -> Step:
    """The same of the transcription."""
    fake = fake.clone().requires_grad_()

    def step() -> tuple[Tensor, ...]:
        value = plain(fake, target, torch.Generator().manual_seed(0))
        return (value.detach(), *torch.autograd.grad(value, [fake, *plain.heads.parameters()]))

    return step


def same_weights(encoder: torch.nn.Module, term: Comparison, plain: plain_cfl.Loss) -> None:
    """Copy ours into the transcription, in the order of their parameters, which is that of the layers."""
    with torch.no_grad():
        for mine, theirs in ((encoder, plain.network), (term, plain.heads)):
            for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
                b.copy_(a)


def images(height: int, width: int) -> Tensor:
    """Generated image and target, (2, 1, 3, height, width) in [-1, 1]."""
    return torch.rand(2, 1, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def check() -> float:
    """Loss and gradients in float64, 64x32, 16 patches of every layer that has more."""
    encoder, term = (module.double() for module in parts(16))
    plain = plain_cfl.Loss(16)
    plain.network.double(), plain.heads.double()
    same_weights(encoder, term, plain)
    fake, target = images(32, 64).double()
    return difference(ours(encoder, term, fake, target, True)(), transcription(plain, fake, target)())


def items(small: bool) -> Iterator[Item]:
    """One item."""
    height, width, patches = (32, 64, 16) if small else (256, 512, 1024)
    fake, target = images(height, width)
    encoder, term = parts(patches)
    plain = plain_cfl.Loss(patches)
    same_weights(encoder, term, plain)
    fast = ours(encoder, term, fake, target, last=True)

    def floor(rates: Mapping[str, float]) -> float:
        with FlopCounterMode(display=False) as counter:
            fast()
        return counter.get_total_flops() / rates["convolution"] / 1e9

    functions = {"transcription": transcription(plain, fake, target), "ours": fast}
    remark = "the released code also has the query's own patches as negatives, here neither side"
    if bf16_hardware():
        half = functions["ours, bf16"] = ours(encoder, term, fake, target, last=True, bf16=True)
        remark += f"; bf16 changes loss and gradients by up to {difference(half(), fast()):.0e} of the largest"
    yield Item(
        f"CFL loss, VGG19, {width}x{height}, batch 1, {patches} patches",
        functions,
        check,
        official=1183,
        targets={"ours": 1050, "ours, bf16": 530},
        bound="convolution",
        floor=floor,
        rounds=3,
        remark=remark,
    )


if __name__ == "__main__":
    main(items)
