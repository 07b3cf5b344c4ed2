"""Frechet and kernel distances of a report: features of every set once per network, then each distance from them.

The features of real images are kept between evaluations (metrics.cache), those of generated ones are not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from errors import UserError
from metrics import ranks
from metrics.cache import FeatureCache
from metrics.features import FeatureNetwork
from metrics.folders import Images, Sets
from metrics.frechet import frechet_from_features
from metrics.images import label
from metrics.kid import kid
from metrics.protocol import versions
from metrics.rows import COMMON, Block, Reading, Rows

KERNELS = ("kid", "kid_lite2")


def extract(
    network: FeatureNetwork, sets: Sets, reading: Reading, content: Mapping[str, str], cache: FeatureCache
) -> dict[str, Tensor]:
    """A network's features (N, C) of each set by its key, each rank computing its share.

    Args:
        content: by key, of the sets whose features are worth keeping, a hash of names and bytes of the files.
    Raises: UserError for a set of one image, before any is read.
    """
    for images in sets.all:
        if len(images.files) < 2:
            raise UserError(f"{images.key}={images.folder}: one image; {network.name} wants two at least")
    found = {}
    for images in sets.all:

        def share(indices: Sequence[int], images: Images = images) -> Tensor:
            mine = replace(images, files=[images.files[index] for index in indices])
            return network.extract(mine.batches(reading.batch_size, reading.workers, network.name))

        key = {
            "content_sha256": content.get(images.key),
            "size": images.size and label(images.size),
            "device": torch.device(reading.device).type,
            **_network_block(network),
        }
        keeps = images.key in content
        held = ranks.once(cache.get, key) if keeps else None
        if held is None:
            held = ranks.gathered(len(images.files), reading.batch_size, share)
            if keeps and ranks.rank() == 0:
                cache.put(key, held)
        found[images.key] = held
    return found


def distances(
    network: FeatureNetwork, features: Mapping[str, Tensor], names: Sequence[str], sets: Sets
) -> tuple[Rows, Block]:
    """Frechet and kernel distances (those of KERNELS, times 1000) between the sets' features on one network."""
    rows: Rows = {}
    for name in names:
        if name in KERNELS:
            value, error = kid(features["fake"], features["real"])
            rows[name] = {"value": 1000 * value, "standard_error": 1000 * error}
        else:
            rows[name] = {"value": frechet_from_features(features["fake"], features["real"])}
        if sets.floor is not None:
            a, b = features[sets.floor.key], features["real"]
            rows[name]["floor"] = 1000 * kid(a, b)[0] if name in KERNELS else frechet_from_features(a, b)
    return rows, _network_block(network)


def _network_block(network: FeatureNetwork) -> Block:
    return {
        "network": network.name,
        "weights": network.spec.weights,
        "weights_sha256": network.sha256,
        "resize": network.spec.resize,
        "versions": versions(*COMMON, *network.spec.packages),
    }
