"""The pool of generated images: filled first, then a mixture, by seed and draw and not by the number of ranks."""

import torch

from engine.pool import ImagePool


def images(*values):
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1)


def test_without_size_everything_comes_back_detached():
    new = images(1, 2).requires_grad_()
    out = ImagePool(0, seed=0).exchange(new, 0)
    assert torch.equal(out, new) and not out.requires_grad


def test_it_fills_before_it_mixes_and_then_returns_old_ones_half_of_the_time():
    pool = ImagePool(50, seed=3)
    for step in range(50):
        assert pool.exchange(images(step), step).item() == step
    old = 0
    for step in range(50, 1050):
        out = int(pool.exchange(images(step), step).item())
        old += out != step
        kept = [int(image.item()) for image in pool.images]
        assert len(kept) == 50
        assert (out not in kept) and (step in kept) == (out != step)  # exchanged, never copied
    assert 440 < old < 560


def test_a_restored_pool_goes_on_as_the_first_would_have():
    one, other = ImagePool(3, seed=1), ImagePool(3, seed=1)
    for step in range(10):
        one.exchange(images(step), step)
    other.load_state(one.state(), torch.device("cpu"))
    for step in range(10, 30):
        assert torch.equal(one.exchange(images(step), step), other.exchange(images(step), step))


def test_pools_of_older_checkpoints_one_a_rank_are_taken_over():
    state = torch.arange(6.0).view(2, 3, 1, 1, 1)
    pool = ImagePool(4, seed=1)
    pool.load_state(state, torch.device("cpu"))
    assert [image.item() for image in pool.images] == [0, 1, 2, 3]
    pool = ImagePool(4, seed=1)
    pool.load_state(torch.empty(2, 0), torch.device("cpu"))
    assert pool.images == [] and pool.state().shape == (0, 0, 0, 0)


def test_what_comes_out_does_not_depend_on_the_number_of_ranks(monkeypatch):
    """Four images a step, on one rank and on each of two."""
    steps = [images(*range(4 * step, 4 * step + 4)) for step in range(10)]
    alone = ImagePool(3, seed=1)
    expected = [alone.exchange(new, step) for step, new in enumerate(steps)]
    monkeypatch.setattr("engine.pool.world", lambda: 2)
    for rank in (0, 1):
        monkeypatch.setattr("engine.pool.rank", lambda rank=rank: rank)
        pool = ImagePool(3, seed=1)
        for step, new in enumerate(steps):
            monkeypatch.setattr(
                "engine.pool.dist.all_gather",
                lambda every, own, new=new: [part.copy_(x) for part, x in zip(every, new.chunk(2), strict=True)],
            )
            out = pool.exchange(new.chunk(2)[rank], step)
            assert torch.equal(out, expected[step].chunk(2)[rank])
        assert torch.equal(pool.state(), alone.state())
