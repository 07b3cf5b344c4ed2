"""Which images a step sees: epochs, ranks, micro-batches and resumption."""

import pytest

from engine.sampling import StepSampler, mix
from errors import UserError


def batches(**change):
    options = {
        "length": 23,
        "batch": 4,
        "accumulate": 1,
        "seed": 5,
        "start": 0,
        "stop": 12,
        "rank": 0,
        "world": 1,
    } | change
    return list(StepSampler(**options))


def test_an_epoch_is_a_permutation_without_its_incomplete_end():
    seen = [index for batch in batches(stop=5) for index, _, _ in batch]
    assert len(seen) == len(set(seen)) == 20
    again = [index for batch in batches(start=5, stop=10) for index, _, _ in batch]
    assert len(set(again)) == 20
    assert seen != again


def test_resumption_continues_the_same_sequence():
    assert batches()[7:] == batches(start=7)


@pytest.mark.parametrize(("world", "accumulate"), [(2, 1), (1, 2), (2, 2), (4, 1)])
def test_ranks_and_micro_batches_partition_the_global_batch(world, accumulate):
    whole = batches()
    parts = [batches(world=world, rank=rank, accumulate=accumulate) for rank in range(world)]
    for step, batch in enumerate(whole):
        joined = [
            item
            for micro in range(accumulate)
            for rank in range(world)
            for item in parts[rank][step * accumulate + micro]
        ]
        assert joined == batch


def test_draws_differ_between_items_and_epochs_and_seeds():
    draws = [draw for batch in batches() for _, draw, _ in batch]
    assert len(set(draws)) == len(draws)
    assert not set(draws) & {draw for batch in batches(seed=6) for _, draw, _ in batch}
    assert all(0 <= draw < 2**63 for draw in draws)
    assert mix(1, 2) != mix(2, 1)


def test_items_are_plain_from_the_asked_step_on():
    sampler = StepSampler(23, 4, 2, 5, 3, 9, 0, 1)
    assert not any(plain for batch in sampler for _, _, plain in batch)
    sampler.plain_from = 7
    assert [batch[0][2] for batch in sampler] == [False] * 8 + [True] * 4  # steps 3 to 8, two micro-batches each


def test_a_data_set_below_the_batch_is_refused_by_name():
    with pytest.raises(UserError, match=r"train\.batch_size=4: .* 3 training images"):
        batches(length=3)
