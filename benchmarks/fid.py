"""FID of 200 against 200 PNG files of 256x256: `python -m benchmarks.fid [rounds=5] [threads=2] [small=1] [only=WORD]`.

The older code is the package pytorch-fid itself, as it is used: batches of 50, two loader processes, its own network,
scipy's matrix square root. Ours is what evaluate.py metrics=[fid] does. Both have the same random weights, in a file of
the published one's form.
"""

import hashlib
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, redirect_stderr
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from pytorch_fid import fid_score
from pytorch_fid import inception as package
from pytorch_fid.inception import InceptionV3
from torch import nn
from torchvision.models import Inception3

from benchmarks.compare import Item, main
from benchmarks.images import write
from metrics import features
from metrics.features import NETWORKS, FeatureNetwork
from metrics.images import load_all
from metrics.measure import measure
from models import weights

BATCH, CHANNELS = 50, 2048


def random_weights(folder: Path) -> Path:
    """A file of the published form, named by its hash; Kaiming's weights keep features in range from layer to layer."""
    torch.manual_seed(0)
    with (
        mock.patch.object(package, "load_state_dict_from_url", lambda *_, **__: {}),
        mock.patch.object(Inception3, "load_state_dict", lambda *_: None),
    ):
        network = package.fid_inception_v3()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    file = folder / "part"
    torch.save(network.state_dict(), file)
    return file.rename(folder / f"pt_inception-2015-12-05-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}.pth")


def official(sides: list[list[Path]], state: dict[str, torch.Tensor], channels: int) -> float:
    """The value of pytorch-fid, its network made anew."""
    with warnings.catch_warnings(), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")  # scipy's on a singular product
        with mock.patch.object(package, "load_state_dict_from_url", lambda *_, **__: state):
            network = InceptionV3([InceptionV3.BLOCK_INDEX_BY_DIM[channels]])
        size = min(BATCH, len(sides[0]))
        (mean, cov), (mean2, cov2) = (
            fid_score.calculate_activation_statistics(files, network, size, channels, "cpu", 2) for files in sides
        )
        return float(fid_score.calculate_frechet_distance(mean, cov, mean2, cov2))


def ours(sides: list[list[Path]], folder: Path) -> float:
    """The value of our evaluation, without a cache."""
    fake, real = (files[0].parent for files in sides)
    report = measure(fake, real, ["fid"], weights_dir=folder, offline=True)
    return float(report["metrics"]["fid"]["value"])


def difference(files: list[Path], state: dict[str, torch.Tensor], folder: Path) -> float:
    """Largest difference of the features of some images, over the largest feature."""
    with mock.patch.object(package, "load_state_dict_from_url", lambda *_, **__: state), redirect_stderr(StringIO()):
        expected = fid_score.get_activations(files, InceptionV3(), len(files), CHANNELS, "cpu", 0)
    found = FeatureNetwork("inception", folder, offline=True)(torch.from_numpy(load_all(files))).numpy()
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def items(small: bool) -> Iterator[Item]:
    """One item; small, the package's shortest network stands for the older code, whose square root takes seconds."""
    count, side, channels = (4, 64, 64) if small else (200, 256, CHANNELS)
    with tempfile.TemporaryDirectory() as place, ExitStack() as patches:
        folder = Path(place)
        sides = [write(folder / name, count, side, side, seed) for seed, name in enumerate(("fake", "real"))]
        file = random_weights(folder)
        state = torch.load(file, weights_only=True)
        known = weights.WeightFile(file.name, None, file.stem[-8:], "")
        patches.enter_context(mock.patch.object(weights, "known_files", lambda: [known]))
        named = {**NETWORKS, "inception": replace(NETWORKS["inception"], weights=file.name)}
        patches.enter_context(mock.patch.object(features, "NETWORKS", named))
        yield Item(
            f"FID, {count} against {count} images, {side}x{side}",
            {"transcription": partial(official, sides, state, channels), "ours": partial(ours, sides, folder)},
            check=partial(difference, sides[0][:4], state, folder),
            official=37000,
            targets={"ours": 14000},
            bound="convolution",
            floor=lambda rates: 2 * count * 11.4 / rates["convolution"],
            rounds=1,
            remark="the check compares features, benchmarks/frechet.py distances; floor: 11.4 GFLOP an image",
        )


if __name__ == "__main__":
    main(items)
