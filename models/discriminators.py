"""PatchGAN discriminators: Isola et al. 2017, arXiv:1611.07004; several scales as in pix2pixHD (Wang et al. 2018,
arXiv:1711.11585) with the spectral and instance norms of SPADE (Park et al. 2019, arXiv:1903.07291).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import SpectralConv2d, instance_norm
from .layout import Layout, pool

SLOPE = 0.2  # of every leaky ReLU
IMAGE = 3  # channels of the judged image, the last ones of the input


class PatchStages(nn.Module):
    """One scale: 4x4 convolutions, padding 2; stride 2 except in the last stage and in the prediction.

    The first has a bias and no norm, the others spectral and instance norm and no bias; leaky ReLU after each; then the
    prediction, a plain convolution to one channel. Widths double from `width` up to 512.
    """

    def __init__(self, channels: int, width: int, stages: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 4, 2, 2)
        self.stages = nn.ModuleList()
        for stage in range(1, stages):
            out = min(2 * width, 512)
            self.stages.append(SpectralConv2d(width, out, 4, 2 if stage < stages - 1 else 1, 2, bias=False))
            width = out
        self.prediction = nn.Conv2d(width, 1, 4, 1, 2)

    def forward(self, condition: Layout, image: Tensor) -> list[Tensor]:
        """The activations of every stage, then the prediction (B, 1, h, w)."""
        weight = self.first.weight
        # Two convolutions in place of one over concatenated channels: the condition takes no gradient and, where the
        # images are several stacked batches (fake and real), is worked out once.
        known = condition.conv(weight[:, :-IMAGE], self.first.bias, 2, 2)
        x = F.conv2d(image, weight[:, -IMAGE:], None, 2, 2)
        x = (x.unflatten(0, (-1, known.shape[0])) + known).flatten(0, 1)
        found = [F.leaky_relu(x, SLOPE)]
        for conv in self.stages:
            found.append(F.leaky_relu(instance_norm(conv(found[-1])), SLOPE))
        return [*found, self.prediction(found[-1])]


class MultiscaleDiscriminator(nn.Module):
    """Discriminators of one architecture and separate weights, each judging half the size of the one before.

    Args:
        channels: of the dense condition plus 3 of the image.
        width: channels of the first stage, 64 in the paper.
        scales: number of sizes.
        stages: convolutions with an activation, before the prediction.

    Weights start as PyTorch's own; `blocks.init_weights` gives the paper's.
    """

    def __init__(self, channels: int, width: int = 64, scales: int = 2, stages: int = 4) -> None:
        super().__init__()
        self.channels = channels
        self.scales = nn.ModuleList(PatchStages(channels, width, stages) for _ in range(scales))

    def forward(self, condition: Tensor, image: Tensor) -> list[list[Tensor]]:
        """Judge images under a condition.

        Args:
            condition: (B, 1 + E, H, W) integer ids and edges, or a dense (B, channels - 3, H, W) map; no gradient.
            image: (k B, 3, H, W) in [-1, 1], k batches in a row that share the condition, such as fakes then reals.

        Returns: per scale the list of `stages` activations, then the prediction, each of k B items.
        """
        like = next(self.parameters())
        layout = Layout(condition, self.channels - IMAGE, like)
        found = []
        for index, scale in enumerate(self.scales):
            if index:
                layout = Layout(layout.pooled(), self.channels - IMAGE, like)
                image = pool(image)
            found.append(scale(layout, image))
        return found
