"""From a uint8 batch on the CPU to what networks take, on the device: normalisation, ids, instance edges."""

import json
import typing
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Annotated, Any

import torch
from torch import Tensor

from data.example import to_float
from data.labels import semantic_map
from engine.ranges import Range, fits, outside


@dataclass(frozen=True)
class Inputs:
    """What a generator reads and makes; kept in every checkpoint, so that a network is rebuilt without its data set.

    source_channels: of the dense semantic map or the source image; classes counts label ids below `ignore`'s own;
    aligned: source and target of an item show the same scene.
    """

    source_channels: Annotated[int, Range(1, 1024)]
    target_channels: Annotated[int, Range(1, 1024)]
    labels: bool
    classes: Annotated[int, Range(1, 256)] | None
    ignore: Annotated[int, Range(0, 255)] | None
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
    def from_json(cls, text: Any) -> "Inputs":
        """The inverse of `json`. Raises: ValueError for text of another shape or with values that no run has."""
        found = json.loads(text) if isinstance(text, str) and len(text) < 4096 else None
        hints = typing.get_type_hints(cls, include_extras=True)
        if not isinstance(found, dict) or not found.keys() <= hints.keys():
            raise ValueError(f"keys of {', '.join(hints)} are expected")
        for key, value in found.items():
            if not fits(value, hints[key]) or outside(value, hints[key]) is not None:
                raise ValueError(f"{key} is {str(value)[:40]!r}")
        lacking = [field.name for field in fields(cls) if field.default is MISSING and field.name not in found]
        if lacking:
            raise ValueError(f"{lacking[0]} is missing")
        inputs = cls(**found)
        if (
            inputs.labels
            and inputs.source_channels != (inputs.classes or 0) + (inputs.ignore is not None) + inputs.instance
        ):
            raise ValueError(f"source_channels is {inputs.source_channels}, which are not its classes and edges")
        return inputs

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
