"""List, check and download pretrained weights: `python scripts/weights.py [download=[NAME,...]] [weights_dir=DIR]`.

A file that is there is checked by its SHA-256 (known whole; by its first digits, which end its name; or recorded when
it was first seen). Downloads appear under their name only when complete and right.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks into scripts/ only

from omegaconf import DictConfig, OmegaConf

from engine.launch import entry, launch
from errors import UserError
from models.weights import WeightFile, found, known_files, packaged, places, resolve, verified


def weights(cfg: DictConfig) -> list[str]:
    """Print one block a file, downloading those of `download`; returns the names of those that are here and right.

    Raises: UserError after the list where a file is damaged, or one that was asked for cannot be had.
    """
    known = {file.name: file for file in known_files()}
    asked = list(cfg.download) if OmegaConf.is_list(cfg.download) else [cfg.download]
    asked = list(known) if asked == ["all"] else asked
    if unknown := [name for name in asked if name not in known]:
        raise UserError(f"download={unknown[0]}: no such file; known: {', '.join(known)}, or all")
    right, problems = [], []
    for file in known.values():
        state = "missing"
        try:
            path = resolve(file.name, cfg.weights_dir, cfg.offline, "leave it out") if file.name in asked else None
            path = path or _present(file, cfg.weights_dir)
            if path is not None:
                right.append(file.name)
                state = f"here, {_hash_state(file)}: {path}"
        except UserError as error:
            problems.append(str(error))
            state = f"NOT USABLE: {error}"
        print(_block(file, state, places(cfg.weights_dir)[0]))
    print(
        f"{len(right)} of {len(known)} are here. Names on hubs (segmenter=hf:NAME, encoder=timm) have caches of their "
        "own: $HF_HOME, by default ~/.cache/huggingface."
    )
    if problems:
        raise UserError(problems[0] if len(problems) == 1 else f"{len(problems)} files are not usable, see above")
    return right


def _present(file: WeightFile, weights_dir: str | None) -> Path | None:
    """The checked path of a file that is there."""
    if file.package is not None:
        return verified(packaged(file), file)
    path = found(file, weights_dir)
    return None if path is None else verified(path, file)


def _hash_state(file: WeightFile) -> str:
    if not file.sha256:
        return "SHA-256 as recorded at first use, no release states it"
    return "SHA-256 right" if len(file.sha256) == 64 else "SHA-256 right in the digits that its name states"


def _block(file: WeightFile, state: str, place: Path) -> str:
    size = "size not known" if file.size is None else f"{file.size:,} bytes"
    source = f"pip install {file.package}" if file.package else file.url or file.page
    goes = "into its package" if file.package else str(place / file.name)
    lines = [
        f"{file.name}  {size}",
        f"  {file.hash_text()}",
        f"  used by {file.use}; licence: {file.licence}",
        f"  from {source}",
        f"  goes {goes}" if file.package else f"  goes to {goes}",
        f"  {state}",
    ]
    return "\n".join(lines) + "\n"


@entry("weights")
def main(cfg: DictConfig) -> None:
    """The command line."""
    weights(cfg)


if __name__ == "__main__":
    launch(main)
