"""Messages for people, out of the errors of libraries."""

import pytest
from torch.utils.data import DataLoader, Dataset

from engine.launch import explain
from errors import UserError


class Broken(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise UserError("a.png: cannot be decoded; replace the file")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_out_of_a_worker_keeps_its_one_line(workers):
    with pytest.raises(UserError) as caught:
        next(iter(DataLoader(Broken(), num_workers=workers)))
    assert explain(caught.value, []) == "a.png: cannot be decoded; replace the file"
