"""The rule by which the recorded official networks were filled: every tensor from its official name alone."""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.official import convert, official_name

GOLDEN = Path(__file__).parent / "golden"


def outputs(file: str) -> dict[str, Tensor]:
    """Recorded float32 outputs, computed in float64 and eval mode."""
    with np.load(GOLDEN / file) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def shapes(network: str) -> dict[str, list[int]]:
    """Official names and shapes of a full-size network, without the fixed blur filters."""
    file = GOLDEN / f"{network.split('_')[0]}_state_dicts.json"
    return {key: shape for key, shape in json.loads(file.read_text())[network].items() if not key.endswith(".filt")}


def fill(network: nn.Module) -> nn.Module:
    """Give a network the values of the rule, in float64 and eval mode."""
    network = network.double().eval()
    official: dict[str, Tensor] = {}
    for name, value in network.state_dict().items():
        key = official_name(name)
        official[key] = value if key.endswith("num_batches_tracked") else wave(key, tuple(value.shape))
    for key in [key for key in official if key.endswith("weight_orig")]:
        left, _, right = torch.linalg.svd(official[key].flatten(1), full_matrices=False)
        official[key.replace("orig", "u")], official[key.replace("orig", "v")] = left[:, 0], right[0]
    network.load_state_dict(convert(official, network))
    return network


def wave(name: str, shape: tuple[int, ...]) -> Tensor:
    """sin(0.1 i^1.1 + (crc32(name) mod 1000) / 100), scaled by the kind of tensor."""
    count = int(np.prod(shape))
    values = np.sin(0.1 * np.arange(count) ** 1.1 + (zlib.crc32(name.encode()) % 1000) / 100)
    if len(shape) > 1:
        values = np.sqrt(3 / (count / shape[0])) * values
    elif name.endswith("running_var"):
        values = 1 + 0.5 * values**2
    else:
        values = 0.1 * values
    return torch.from_numpy(values.reshape(shape))


def image(batch: int, channels: int, height: int, width: int) -> Tensor:
    """The recorded input image, float64."""
    b, c, y, x = (torch.arange(n, dtype=torch.float64) for n in (batch, channels, height, width))
    b, c, y = b.view(-1, 1, 1, 1), c.view(-1, 1, 1), y.view(-1, 1)
    return torch.sin(0.5 + 1.1 * b + 0.7 * c + 0.13 * y + 0.09 * x + 0.003 * x * y)


def ids(batch: int, classes: int, height: int, width: int) -> Tensor:
    """The recorded label map, (batch, 1, height, width) int64."""
    b, y, x = torch.arange(batch).view(-1, 1, 1, 1), torch.arange(height).view(-1, 1), torch.arange(width)
    return (y // 8 * 3 + x // 8 * 5 + b) % classes


def onehot(labels: Tensor, classes: int) -> Tensor:
    """(B, 1, H, W) ids to a float64 (B, classes, H, W) map."""
    return torch.zeros(labels.shape[0], classes, *labels.shape[2:], dtype=torch.float64).scatter_(1, labels.long(), 1)
