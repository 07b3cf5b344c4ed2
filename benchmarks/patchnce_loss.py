"""PatchNCE forward and backward, batch 4: `python -m benchmarks.patchnce_loss [rounds=5] [threads=2] [small=1]
[only=WORD]`.

The transcription holds several matrices of all logits, ours never one.
"""

from collections.abc import Iterator, Mapping

from benchmarks import plain_nce
from benchmarks.compare import Item, extra_memory, main
from benchmarks.gradients import BATCH, CHANNELS, difference, features, step
from losses.contrastive import PatchNCE

OFFICIAL, TARGETS = {1024: 33.5, 4096: 776.0}, {1024: 25.0, 4096: 450.0}


def items(small: bool) -> Iterator[Item]:
    """One for each number of patches."""
    for patches in (16, 32) if small else (1024, 4096):
        yield item(patches)


def item(patches: int) -> Item:
    """With the target's share of memory in the remark."""
    query, key = features(patches)
    plain, ours = step(plain_nce.patch_nce, query, key), step(PatchNCE(), query, key)

    def floor(rates: Mapping[str, float]) -> float:
        return 4 * BATCH * patches**2 * CHANNELS / rates["product"] / 1e9

    remark = ""
    if patches == 4096:
        plain(), ours()
        share = extra_memory(ours) / extra_memory(plain)
        remark = f"extra memory {share:.0%} of the transcription's; asked for: at most 25 %"
    return Item(
        f"PatchNCE forward and backward, batch {BATCH}, {patches} patches",
        {"transcription": plain, "ours": ours},
        lambda: difference(ours(), plain()),
        official=OFFICIAL.get(patches),
        targets={"ours": TARGETS[patches]} if patches in TARGETS else {},
        bound="product",
        floor=floor,
        rounds=3 if patches > 1024 else None,
        remark=remark,
    )


if __name__ == "__main__":
    main(items)
