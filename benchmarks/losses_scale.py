"""Contrastive losses against the number of patches, forward and backward, batch 4: `python -m benchmarks.losses_scale
[rounds=5] [threads=2] [small=1] [only=WORD]`.

Weights are constants on both sides. One item a loss and size, named "<loss>, <patches> patches".
"""

from collections.abc import Iterator
from functools import partial

from benchmarks import plain_nce
from benchmarks.compare import Item, main
from benchmarks.gradients import Loss, difference, features, step
from losses.contrastive import MoNCE, PatchNCE, WeightNCE

LOSSES: dict[str, tuple[Loss, Loss]] = {
    "PatchNCE": (plain_nce.patch_nce, PatchNCE()),
    "WeightNCE": (plain_nce.weight_nce, WeightNCE("hard")),
    "MoNCE": (partial(plain_nce.mo_nce, detach_weights=True), MoNCE("hard")),
}
SIZES = (64, 256, 1024, 4096)


def items(small: bool) -> Iterator[Item]:
    """Every loss at every size."""
    for name, (plain, ours) in LOSSES.items():
        for patches in (16, 32) if small else SIZES:
            query, key = features(patches)
            slow, fast = step(plain, query, key), step(ours, query, key)
            long = name == "MoNCE" and patches > 1024  # the transcription takes so long that it is called once
            yield Item(
                f"{name}, {patches} patches",
                {"transcription": slow, "ours": fast},
                None if long else lambda slow=slow, fast=fast: difference(fast(), slow()),
                rounds=1 if long else 3,
            )


if __name__ == "__main__":
    main(items)
