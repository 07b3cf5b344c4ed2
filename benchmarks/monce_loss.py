"""MoNCE forward and backward, batch 4: `python -m benchmarks.monce_loss [rounds=5] [threads=2] [small=1] [only=WORD]`.

The transcription goes back through the 50 iterations of its plan by autograd. Ours takes the weights for constants,
as a training does by default, or goes back through the plan as well, by a backward pass of its own.
"""

from collections.abc import Iterator, Mapping
from functools import partial

from benchmarks import plain_nce
from benchmarks.compare import Item, main
from benchmarks.gradients import BATCH, CHANNELS, difference, features, step
from losses.contrastive import MoNCE

OFFICIAL = {256: 25.0, 1024: 751.0, 4096: 21144.0}
DETACHED, THROUGH = "ours, weights detached", "ours, gradient through the plan"
TARGETS = {256: {DETACHED: 5.0, THROUGH: 15.0}, 1024: {DETACHED: 75.0, THROUGH: 130.0}, 4096: {DETACHED: 1900.0}}


def items(small: bool) -> Iterator[Item]:
    """One for each number of patches."""
    for patches in (16, 32) if small else (256, 1024, 4096):
        yield item(patches)


def item(patches: int) -> Item:
    """With the largest number the transcription takes so long that it is called once, and not checked again."""
    query, key = features(patches)
    functions = {
        "transcription": step(plain_nce.mo_nce, query, key),
        DETACHED: step(MoNCE("hard"), query, key),
        THROUGH: step(MoNCE("hard", detach_weights=False), query, key),
    }
    constant = step(partial(plain_nce.mo_nce, detach_weights=True), query, key)

    def check() -> float:
        return max(
            difference(functions[THROUGH](), functions["transcription"]()),
            difference(functions[DETACHED](), constant()),
        )

    def floor(rates: Mapping[str, float]) -> float:
        entries = BATCH * patches**2
        return entries * (4 * CHANNELS / rates["product"] + 8 / rates["memory"]) / 1e9

    large = patches > 1024
    return Item(
        f"MoNCE forward and backward, batch {BATCH}, {patches} patches",
        {name: function for name, function in functions.items() if not (large and name == THROUGH)},
        None if large else check,
        official=OFFICIAL.get(patches),
        targets=TARGETS.get(patches, {}),
        bound="memory",
        floor=floor,
        rounds=1 if large else 3 if patches > 256 else None,
        remark="the same functions as with 1024 patches, where they are checked" if large else "",
    )


if __name__ == "__main__":
    main(items)
