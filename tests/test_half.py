"""Losses on float16: finite wherever their inputs are, and gradients wherever float32's fit into float16."""

import pytest
import torch
from torch import Tensor

from losses.adversarial import DiscriminatorGAN, GeneratorGAN
from losses.comparison import Comparison
from losses.contrastive import MoNCE, PatchNCE, WeightNCE
from losses.objective import Views
from losses.perceptual import L1, FeatureMatching, Perceptual
from losses.pixel import PixelL1
from losses.similarity import map_loss, similarity_map
from losses.spatial import SelfSimilarity
from losses.transport import sinkhorn
from losses.vectors import unit
from losses.weighting import softmax_weights, transport_weights
from tests.test_contrastive import BOTH_WAYS, FAMILY

LARGEST = torch.finfo(torch.float16).max


class Given:
    """An encoder whose features are the images themselves, 4 channels."""

    channels = map_channels = (4,)

    def __call__(self, image: Tensor) -> list[Tensor]:
        return [image]


def views(fake: Tensor, source: Tensor) -> Views:
    images = {"fake": fake, "source": source, "target": source.flip(-1)}
    return Views(Given(), images, torch.Generator().manual_seed(0))


def term(made, **given):
    made = made(channels=(4,), **given)
    return lambda fake, source: made(views(fake, source))


def comparison(loss, head="identity"):
    return lambda **given: Comparison(loss, [["fake", "source"]], map_channels=(4,), head=head, dim=4, **given)


def heads(fake, source):
    """LSeSim's two losses, of heads in float32 on what the encoder gives."""
    made = SelfSimilarity(["fake", "source"], (4,), contrast=MoNCE("hard"), window=3)
    own = made.own_loss({"source": [source], "fake": [fake], "turned_target": [source.flip(-1)]}, None)
    return made(views(fake, source)) + own


def directions(maps: Tensor) -> Tensor:
    """Unit vectors as float16 has them."""
    return unit(rows(maps).float(), plus=1e-7).half().to(maps)


def rows(maps: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, N, C)."""
    return maps.flatten(2).mT


CASES = {
    **{f"nce{at}": lambda f, s, loss=loss: loss(rows(f), rows(s)) for at, loss in enumerate([*FAMILY, *BOTH_WAYS])},
    **{
        f"against{at}": lambda f, s, loss=loss: loss.against(directions(f), directions(s), -directions(s).detach())
        for at, loss in enumerate([PatchNCE(), WeightNCE("hard"), MoNCE("hard", bidirectional=True)])
    },
    "batch": lambda f, s: PatchNCE(negatives="batch")(rows(f), rows(s)),
    "plain": lambda f, s: PatchNCE(temperature=1.0, normalize=False)(rows(f), rows(s)),
    "contrast": term(comparison(PatchNCE())),
    "projected": lambda f, s: term(comparison(PatchNCE(), "mlp"))(f, s),
    "perceptual": term(comparison(Perceptual())),
    "l1": lambda f, s: L1()(f, s),
    "pixels": lambda f, s: PixelL1([["fake", "source"]])(views(f, s)),
    "features": lambda f, s: FeatureMatching()(Views(None, {"fake_stages": [[f, -f]], "real_stages": [[s, s]]})),
    **{
        f"gan_{mode}": lambda f, s, mode=mode: GeneratorGAN(mode).loss(f)
        for mode in ("hinge", "lsgan", "nonsaturating")
    },
    **{
        f"discriminator_{mode}": lambda f, s, mode=mode: DiscriminatorGAN(mode)([s, f], [f, s])
        + DiscriminatorGAN(mode).real_loss(f) + DiscriminatorGAN(mode).fake_loss(f)
        for mode in ("hinge", "lsgan", "nonsaturating")
    },
    **{
        f"spatial_{mode}_{keys}_{cosine}": term(
            lambda mode=mode, keys=keys, cosine=cosine, **given: SelfSimilarity(
                ["fake", "source"], mode=mode, keys=keys, cosine=cosine, window=3, **given
            )
        )
        for mode in ("cos", "l1", "strotss") for keys in ("window", "queries") for cosine in (False, True)
        if mode != "strotss" or keys == "queries"
    },
    "heads": heads,
    **{
        f"maps_{mode}": lambda f, s, mode=mode: map_loss(rows(f)[:, :4], rows(s)[:, :4], mode)
        for mode in ("cos", "l1", "strotss")
    },
    "map": lambda f, s: similarity_map(f, None, cosine=True).sum(),
    "softmax": lambda f, s: softmax_weights(rows(f)[:, :4], "hard", 0.01).exp().square().sum(),
    "transport": lambda f, s: transport_weights(rows(f)[:, :4], "easy", 0.1).exp().square().sum(),
    "sinkhorn": lambda f, s: sinkhorn(rows(f)[:, :4], 5).exp().square().sum(),
}  # fmt: skip


def inputs(kind: str) -> tuple[Tensor, Tensor]:
    """Two batches of feature maps, (2, 4, 4, 4) float16."""
    random = torch.Generator().manual_seed(3)
    first, second = torch.randn(2, 2, 4, 4, 4, generator=random).half()
    if kind == "large":
        first, second = first.sign() * LARGEST, second.sign() * LARGEST
    elif kind == "wide":
        first, second = (x * torch.logspace(-6, 4, 64).view(1, 4, 4, 4).half() for x in (first, second))
    elif kind == "tiny":
        first, second = (x * 6e-8 for x in (first, second))
    elif kind == "zero":
        first, second = torch.zeros_like(first), torch.zeros_like(second)
    elif kind == "dead":
        first[:, :, 1:3], second[:, :, 2:] = 0, 0
    elif kind == "flat":
        first, second = torch.full_like(first, 200), torch.full_like(second, 300)
    elif kind == "equal":
        second = first.clone()
    return first, second


@pytest.mark.parametrize("kind", ["ordinary", "large", "wide", "tiny", "zero", "dead", "flat", "equal"])
@pytest.mark.parametrize("name", CASES)
def test_finite_on_float16_wherever_float32_is(name, kind):
    half = [x.requires_grad_() for x in inputs(kind)]
    full = [x.detach().float().requires_grad_() for x in half]
    values, slopes = [], []
    for given in (half, full):
        torch.manual_seed(0)
        value = CASES[name](*given)
        values.append(value)
        slopes.append(torch.autograd.grad(value, given, allow_unused=True, materialize_grads=True))
    assert torch.isfinite(values[1]) and torch.isfinite(values[0]) and values[0].dtype != torch.float16
    torch.testing.assert_close(values[0], values[1], rtol=1e-2, atol=1e-2)
    for of_half, of_full in zip(*slopes, strict=True):
        assert torch.isfinite(of_full).all()
        assert torch.isfinite(of_half[of_full.abs() < 0.9 * LARGEST]).all()
