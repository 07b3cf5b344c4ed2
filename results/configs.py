"""What runs were asked to do: their settings by dotted key, and how these differ."""

import re
from collections.abc import Sequence
from typing import Any

from results.collect import Run

# Keys that say where and how fast a run went, not what it computed.
MACHINE = re.compile(
    r"^(seed|weights_dir|offline|dataset\.root|evaluate\..*|.*\.(weights_dir|offline)"
    r"|train\.(minutes|workers|device|log_every|sample_every|samples|save_every|keep|profile))$"
)
CITED = re.compile(r"^(run|paper|paper\..*|deviations|deviations_data)$")
REPEATED = re.compile(r"^nce\.")  # losses and terms hold what they take of it


def flatten(value: Any, name: str = "") -> dict[str, Any]:
    """Nested dictionaries to one with dotted keys; lists stay values."""
    if not isinstance(value, dict) or not value:
        return {name: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= flatten(inner, f"{name}.{key}" if name else str(key))
    return flat


def settings(run: Run) -> dict[str, Any]:
    """The config by dotted key, without what only says where or how fast it ran, and without what it cites.

    What `nce` gives to losses and terms, and the loss that a term repeats from `loss`, are left out, so that every
    choice stands once.
    """
    config = dict(run.config)
    loss = config.get("loss")
    left_out = (MACHINE, CITED, REPEATED)
    flat = {key: value for key, value in flatten(config).items() if not any(keys.match(key) for keys in left_out)}
    if not isinstance(loss, dict):
        return flat
    for name, node in (config.get("objective") or {}).items():
        if isinstance(node, dict) and (node.get("term") or {}).get("loss") == loss:
            flat = {key: value for key, value in flat.items() if not key.startswith(f"objective.{name}.term.loss.")}
    return flat


def config_differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Settings that are not equal in all runs: dotted key to one value a run, None where it has no such key."""
    flats = [settings(run) | {"seed": run.seed} for run in runs]
    keys = sorted({key for flat in flats for key in flat})
    table = {key: [flat.get(key) for flat in flats] for key in keys}
    return {key: values for key, values in table.items() if any(value != values[0] for value in values)}
