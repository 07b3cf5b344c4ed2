"""Settings: which images a step makes out of a batch. A setting knows no loss."""

from typing import Any

from torch import Tensor, nn


class Paired(nn.Module):
    """fake = G(source), to be compared with target (SPADE, CFL, paired MoNCE).

    Args:
        generator: maps the semantic map or source image to an image in [-1, 1].
    """

    views = ("source", "target", "fake")
    conditional = True  # the discriminator sees the source beside the image

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The views by name; all images (B, C, H, W) in [-1, 1]."""
        return {"source": batch["source"], "target": batch["target"], "fake": self.generator(batch["source"])}
