"""Published segmentation networks: state dicts of DRN, UperNet-101 of mit-semseg, SegFormer and others of transformers.

The last two need a package of their own (requirements-semseg.txt, requirements-hf.txt), imported when they are used.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from errors import UserError

from .adapter import Segmenter
from .drn import DRN_MEAN, DRN_STD, drn_from_state
from .encoders import IMAGENET_MEAN, IMAGENET_STD
from .weights import read_state

ENCODER, DECODER = "encoder_*.pth", "decoder_*.pth"  # mit-semseg's two files
HUB = "hf:"  # opens a name on the Hugging Face hub


def drn_segmenter(state: Mapping[str, Tensor], path: Path) -> Segmenter:
    """The segmenter of an official DRN checkpoint, `state`, which was read from `path`."""
    try:
        name, network = drn_from_state(state)
    except UserError as error:
        raise UserError(f"segmenter={path}: {error}") from error
    return Segmenter(network, network.seg.out_channels, DRN_MEAN, DRN_STD).named(name, path)


class UperNet(nn.Module):
    """ResNet-101 and UperNet (Xiao et al. 2018, arXiv:1807.10221): normalised images to class probabilities, in full
    size. Built without the package's own ModelBuilder.build_encoder, which would download a backbone.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        try:
            from mit_semseg.models import models, resnet
        except ImportError as error:
            raise UserError(f"UperNet needs mit-semseg ({error}): pip install -r requirements-semseg.txt") from error
        self.encoder = models.Resnet(resnet.resnet101(pretrained=False))
        self.decoder = models.ModelBuilder.build_decoder("upernet", fc_dim=2048, num_class=classes, use_softmax=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x, return_feature_maps=True), segSize=x.shape[2:])


def upernet_segmenter(folder: Path) -> Segmenter:
    """The segmenter of a folder with encoder_epoch_50.pth and decoder_epoch_50.pth (ade20k-resnet101-upernet).

    Raises: UserError without the package, for more or fewer files, and for weights of another network.
    """
    found = [sorted(folder.glob(pattern)) for pattern in (ENCODER, DECODER)]
    if [len(files) for files in found] != [1, 1]:
        raise UserError(f"segmenter={folder}: wanted one {ENCODER} and one {DECODER}")
    encoder, decoder = (files[0] for files in found)
    states = [read_state(file, "segmenter") for file in (encoder, decoder)]
    head = states[1].get("conv_last.1.weight")
    if head is None:
        raise UserError(f"segmenter={decoder}: no decoder of UperNet: conv_last.1.weight is missing")
    network = UperNet(len(head))
    for part, state, file in zip((network.encoder, network.decoder), states, (encoder, decoder), strict=True):
        try:
            missing = part.load_state_dict(state, strict=False).missing_keys  # the encoder's may bring a classifier
        except RuntimeError as error:
            raise UserError(f"segmenter={file}: not of UperNet-101 ({str(error).splitlines()[-1].strip()})") from error
        if missing:
            raise UserError(f"segmenter={file}: not of UperNet-101: {', '.join(missing[:3])} missing")
    return Segmenter(network.eval(), len(head)).named("upernet_resnet101", encoder, decoder)


class Transformer(nn.Module):
    """A segmentation network of transformers: normalised images to its logits, often at a quarter of the size."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(pixel_values=x).logits


def hub_segmenter(name: str, offline: bool = False) -> Segmenter:
    """The segmenter of a name on the Hugging Face hub, such as nvidia/segformer-b5-finetuned-cityscapes-1024-1024.

    Its files come from the hub's cache ($HF_HOME), or are downloaded into it unless `offline`.
    """
    _transformers()
    from huggingface_hub import snapshot_download

    wanted = ["config.json", "preprocessor_config.json", "*.safetensors", "pytorch_model*.bin"]
    try:
        folder = snapshot_download(name, local_files_only=offline, allow_patterns=wanted)
    except (OSError, ValueError, RuntimeError) as error:
        told = "is not in its cache, and offline is set" if offline else f"cannot be had ({_line(error)})"
        raise UserError(
            f"segmenter={HUB}{name}: {told}; a folder with the network's files, segmenter=FOLDER, does as well"
        ) from error
    return transformer_segmenter(Path(folder))


def transformer_segmenter(folder: Path) -> Segmenter:
    """The segmenter of a folder that `save_pretrained` of transformers wrote: config.json and weights.

    Mean and deviation are those of its preprocessor_config.json, or ImageNet's; images keep their size.
    Raises: UserError without the package, and for a folder that holds no segmentation network.
    """
    transformers = _transformers()
    try:
        network = transformers.AutoModelForSemanticSegmentation.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,  # config.json may name Python files, pytorch_model.bin may hold pickled code
            weights_only=True,
        ).eval()
        norm = _norm(folder)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(f"segmenter={folder}: cannot be opened ({_line(error)})") from error
    files = [file for kind in ("*.safetensors", "*.bin", "*config.json") for file in sorted(folder.glob(kind))]
    name = type(network).__name__
    return Segmenter(Transformer(network), network.config.num_labels, *norm).named(name, *files)


def _norm(folder: Path) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation of a folder's preprocessor; ImageNet's where it has none."""
    file = folder / "preprocessor_config.json"
    settings = json.loads(file.read_text()) if file.is_file() else {}
    return settings.get("image_mean", IMAGENET_MEAN), settings.get("image_std", IMAGENET_STD)


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise UserError("segmenter= of this kind needs transformers: pip install -r requirements-hf.txt") from error
    return transformers


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
