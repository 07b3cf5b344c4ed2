"""The pool of generated images: filled first, then a mixture, and a pure function of seed, rank and draw."""

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


def test_ranks_draw_apart_and_take_saved_pools_in_turn():
    state = torch.arange(6.0).view(2, 3, 1, 1, 1)  # of two ranks
    pools = [ImagePool(3, seed=1, rank=rank) for rank in range(3)]
    for pool in pools:
        pool.load_state(state, torch.device("cpu"))
    assert [pool.images[0].item() for pool in pools] == [0, 3, 0]
    outs = [[pool.exchange(images(-1), step).item() == -1 for step in range(40)] for pool in pools]
    assert outs[0] != outs[2]
