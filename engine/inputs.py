"""From a uint8 batch on the CPU to what networks take, on the device: normalisation, ids, instance edges."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from data.example import to_float
from data.labels import semantic_map


@dataclass(frozen=True)
class Inputs:
    """What a generator reads and makes; kept in every checkpoint, so that a network is rebuilt without its data set.

    source_channels: of the dense semantic map or the source image; classes counts label ids below `ignore`'s own;
    aligned: source and target of an item show the same scene.
    """

    source_channels: int
    target_channels: int
    labels: bool
    classes: int | None
    ignore: int | None
    instance: bool
    aligned: bool = True

    @classmethod
    def of(cls, dataset: Any) -> "Inputs":
        """Read off a data set of data/."""
        return cls(**{name: getattr(dataset, name) for name in cls.__dataclass_fields__})

    def reversed(self) -> "Inputs":
        """Of the way back, from target to source; both are images."""
        return Inputs(self.target_channels, self.source_channels, False, None, None, False, self.aligned)

    @classmethod
    def from_json(cls, text: str) -> "Inputs":
        """The inverse of `json`. Raises: ValueError for anything else."""
        found = json.loads(text)
        if not isinstance(found, dict) or found.keys() != cls.__dataclass_fields__.keys():
            raise ValueError(f"inputs: expected the keys {', '.join(cls.__dataclass_fields__)}")
        for key, value in found.items():
            optional, switch = key in ("classes", "ignore"), key in ("labels", "instance", "aligned")
            if not (optional and value is None) and type(value) is not (bool if switch else int):
                raise ValueError(
                    f"inputs: {key} is {str(value)[:40]!r}; expected {'true or false' if switch else 'a whole number'}"
                )
        return cls(**found)

    def json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    def to(
        self,
        batch: Mapping[str, Any],
        device: torch.device,
        dtype: torch.dtype,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> dict[str, Any]:
        """Move a collated batch to the device; uint8 travels, normalisation to [-1, 1] and edges happen there.

        Returns: `name`; `source`, the integer semantic map (B, 1 + E, H, W) or an image; `target` where there is one.
        """

        def image(tensor: Tensor) -> Tensor:
            return to_float(tensor.to(device, non_blocking=True)).to(dtype, memory_format=layout)

        moved: dict[str, Any] = {"name": batch["name"]}
        if self.labels:
            instance = batch["instance"].to(device, non_blocking=True) if self.instance else None
            moved["source"] = semantic_map(
                batch["source"].to(device, non_blocking=True), self.classes or 0, self.ignore, instance
            )
        else:
            moved["source"] = image(batch["source"])
        if "target" in batch:
            moved["target"] = image(batch["target"])
        return moved
