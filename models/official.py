"""Names of the official SPADE and CUT checkpoints (also CFL's and both halves of MoNCE's) for our parameters.

Official files are plain state dicts. SPADE's have the old form of spectral norm: weight_orig, weight_u, weight_v. Files
of the first PyTorch versions lack weight_v; those of a port to torch.nn.utils.parametrizations have newer names. Both
are read. CUT's hold the fixed blur filters as buffers `filt`, which ours do not need.
"""

import re
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from errors import UserError

SPECTRAL = {"weight": "weight_orig", "u": "weight_u", "v": "weight_v", "bias": "bias"}
RESIDUAL = {"first": "conv_block.1", "second": "conv_block.5"}
RENAMES = {"norm": "param_free_norm", "shared": "mlp_shared.0", "gamma": "mlp_gamma", "beta": "mlp_beta"}
NEWER = {"original": "weight_orig", "0._u": "weight_u", "0._v": "weight_v"}  # below parametrizations.weight
READS_MAP = re.compile(r"(fc|\w+\.norm_[01s]\.mlp_shared\.0|discriminator_\d+\.model0\.0)\.weight")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def official_name(name: str, stages: int = 4) -> str:
    """The official key of a parameter or buffer of ours.

    Args:
        name: in the state dict of SPADEGenerator, MultiscaleDiscriminator, ResnetGenerator, PatchDiscriminator, or of
            Comparison with MLP heads (CUT's PatchSampleF).
        stages: of the multi-scale discriminator, four in every official network.
    """
    if found := re.fullmatch(r"(model\.\d+)\.(first|second)\.(\w+)", name):
        return f"{found[1]}.{RESIDUAL[found[2]]}.{found[3]}"
    if found := re.fullmatch(r"heads\.(\d+)\.(.+)", name):
        return f"mlp_{found[1]}.{found[2]}"
    if found := re.fullmatch(r"scales\.(\d+)\.(first|prediction)\.(\w+)", name):
        scale, layer, leaf = found.groups()
        return f"discriminator_{scale}.model{0 if layer == 'first' else stages}.0.{leaf}"
    if found := re.fullmatch(r"scales\.(\d+)\.stages\.(\d+)\.(\w+)", name):
        scale, layer, leaf = found.groups()
        return f"discriminator_{scale}.model{int(layer) + 1}.0.0.{SPECTRAL[leaf]}"
    name = re.sub(r"^middle_", "G_middle_", name)
    name = re.sub(r"^output\.", "conv_img.", name)
    if found := re.fullmatch(r"(\w+\.conv_[01s])\.(\w+)", name):
        return f"{found[1]}.{SPECTRAL[found[2]]}"
    if found := re.fullmatch(r"(\w+\.norm_[01s])\.(\w+)\.(\w+)", name):
        return f"{found[1]}.{RENAMES[found[2]]}.{found[3]}"
    return name


def plain(state: Mapping[object, object]) -> dict[str, Tensor]:
    """The same tensors under the names of the official files, none of which is damaged.

    Raises: UserError for what is no state dict, and for a tensor whose values cannot be a network's.
    """
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise UserError("holds no plain state dict, as official files do")
        name = str(key).removeprefix("module.")
        if newer := re.fullmatch(r"(.*\.)parametrizations\.weight\.(original|0\._[uv])", name):
            name = newer[1] + NEWER[newer[2]]
        if problem := _damage(name, value):
            raise UserError(f"{name}: {problem}; the file is damaged or of another network")
        found[name] = value
    return found


def _damage(name: str, value: Tensor) -> str | None:
    """What keeps a tensor from being a network's; None for a sound one."""
    if value.layout != torch.strided or value.is_quantized or value.is_meta or value.is_nested:
        return "is no plain tensor"
    if value.untyped_storage().nbytes() < value.numel() * value.element_size():
        return f"has {value.numel():,} values, of which the file holds fewer"  # a size of any kind costs no bytes
    if name.endswith("num_batches_tracked"):
        return None
    if value.dtype not in FLOATS:
        return f"is of {value.dtype}, not of floating point"
    if not value.isfinite().all():
        return "holds a value that is no finite number"
    return "holds a negative variance" if name.endswith("running_var") and (value < 0).any() else None


def reorder(state: Mapping[str, Tensor], order: Sequence[int]) -> dict[str, Tensor]:
    """An official SPADE state dict whose convolutions read the semantic map in another order of channels.

    Args:
        order: for each channel of the new map, its index in the official one. Channels beyond these (instance edges,
            and of the discriminator the image) stay where they are.
    """

    def moved(weight: Tensor) -> Tensor:
        return weight[:, [*order, *range(len(order), weight.shape[1])]]

    fits = {key for key, value in state.items() if value.ndim == 4 and value.shape[1] >= len(order)}
    return {key: moved(value) if key in fits and READS_MAP.fullmatch(key) else value for key, value in state.items()}


def recognise(state: Mapping[str, Tensor]) -> tuple[str, str, dict[str, int | str | bool]]:
    """Kind, model and settings of an official network, read off its names and shapes.

    Returns: generator, discriminator or heads; spade or cut; the keys of configs/model/<model>.yaml that differ between
    networks of this kind, with `channels` (and `output_channels`) that follow from the data. Of SPADE's upsampling only
    "most" is told: normal and more have the same parameters.
    Raises: UserError for any other state dict.
    """
    kind, model, settings = _recognise(state)
    for name, value in settings.items():
        if value == 0 and not isinstance(value, bool):
            raise UserError(f"{name} of the {kind} is 0 by its shapes; the file is damaged")
    return kind, model, settings


def _recognise(state: Mapping[str, Tensor]) -> tuple[str, str, dict[str, int | str | bool]]:
    if "fc.weight" in state and "conv_img.weight" in state:
        if state["fc.weight"].ndim == 2:
            raise UserError("a SPADE generator that starts from a style vector (--use_vae), which is not built here")
        most = "up_4.conv_0.weight_orig" in state
        return (
            "generator",
            "spade",
            {
                "channels": _sizes(state, "fc.weight")[1],
                "output_channels": _sizes(state, "conv_img.weight")[0],
                "width": _sizes(state, "conv_img.weight")[1] * (2 if most else 1),
                "hidden": _sizes(state, "head_0.norm_0.mlp_shared.0.weight")[0],
                **({"upsampling": "most"} if most else {}),
            },
        )
    if "discriminator_0.model0.0.weight" in state:
        width, channels, *_ = _sizes(state, "discriminator_0.model0.0.weight")
        scales = len({key.partition(".")[0] for key in state})
        return "discriminator", "spade", {"channels": channels, "width": width, "scales": scales}
    if "mlp_0.0.weight" in state:
        return "heads", "cut", {}
    convolutions = [key for key in state if re.fullmatch(r"model\.[0-9]{1,4}(\.conv_block\.1)?\.weight", key)]
    convolutions = [key for key in convolutions if state[key].ndim == 4]
    residual = [key for key in convolutions if "conv_block" in key]
    last = state[max(convolutions, key=position)] if convolutions else None
    if residual and last is not None and "model.1.weight" in convolutions:
        first = state["model.1.weight"]
        return (
            "generator",
            "cut",
            {
                "channels": first.shape[1],
                "output_channels": last.shape[0],
                "width": first.shape[0],
                "blocks": len(residual),
                "antialias": min(map(position, residual)) == 12,  # the blurs are layers of their own
            },
        )
    if not residual and len(convolutions) > 2 and "model.0.weight" in convolutions:
        first = state["model.0.weight"]
        return (
            "discriminator",
            "cut",
            {
                "channels": first.shape[1],
                "width": first.shape[0],
                "stages": len(convolutions) - 2,
                "antialias": position(convolutions[1]) == 3,
            },
        )
    raise UserError(
        f"{len(state)} entries such as {', '.join(list(state)[:3])}: none of the official generators (*_net_G.pth), "
        "discriminators (*_net_D.pth) and projection heads (*_net_F.pth) of SPADE and CUT"
    )


def _sizes(state: Mapping[str, Tensor], key: str) -> torch.Size:
    """Of a convolution's weight. Raises: UserError where it is absent or none."""
    if key not in state or state[key].ndim != 4:
        raise UserError(f"{key} is {shape(state, key)}; the weight of a convolution, of four dimensions, is expected")
    return state[key].shape


def position(key: str) -> int:
    """Of the layer model.N in its stack."""
    return int(key.split(".")[1])


def convert(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """An official state dict under our names, ready for `network.load_state_dict`.

    What PyTorch's older versions kept besides, or did not keep, does not count: the normalised weight beside
    weight_orig, a missing weight_v, running statistics of instance norms, counts of batches.
    Raises UserError for keys that are missing, left over or of another shape: the file belongs to another network.
    """
    state = {key: value for key, value in state.items() if not key.endswith(".filt")}
    state |= _missing_vectors(state)
    wanted = {official_name(name): (name, value) for name, value in network.state_dict().items()}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    state = {
        key: value
        for key, value in state.items()
        if key in wanted or not (key.endswith(statistics) or f"{key}_orig" in state)
    }
    state |= {
        key: value for key, (_, value) in wanted.items() if key.endswith("num_batches_tracked") and key not in state
    }
    wrong = sorted(wanted.keys() ^ state.keys())
    wrong += [key for key, (_, value) in wanted.items() if key in state and state[key].shape != value.shape]
    if wrong:
        detail = ", ".join(f"{key} ({shape(state, key)}, wanted {wanted_shape(wanted, key)})" for key in wrong[:3])
        raise UserError(
            f"official checkpoint does not fit {type(network).__name__}: {len(wrong)} keys differ, such as {detail}; "
            f"check the number of input channels, the width, and upsampling (SPADE) or blocks and antialias (CUT)"
        )
    return {name: state[key] for key, (name, _) in wanted.items()}


def _missing_vectors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """weight_v of spectral-normed layers without one, so that u^T W v is the sigma by which the file divides.

    The first PyTorch versions kept u and the divided weight: sigma is the ratio of both weights. Without the divided
    weight, v is what the next power iteration makes of u.
    """
    found = {}
    for key, weight in state.items():
        name = key.removesuffix("_orig")
        u, divided = state.get(f"{name}_u"), state.get(name)
        if not key.endswith("weight_orig") or f"{name}_v" in state or u is None:
            continue
        if weight.ndim < 2 or u.shape != weight.shape[:1] or not weight.numel():
            continue  # of another network, which the comparison of shapes says
        flat = weight.double().flatten(1)
        v = F.normalize(flat.mT @ u.double(), dim=0, eps=1e-12)
        if divided is not None and divided.shape == weight.shape and divided.any():
            quotient = flat.flatten().dot(divided.double().flatten()) / divided.double().square().sum()
            v = v * quotient / torch.dot(u.double(), flat @ v)
        if not v.isfinite().all() or not v.any():
            raise UserError(f"{name}_v: absent, and {key} with {name}_u gives none; the file is damaged")
        found[f"{name}_v"] = v.to(weight.dtype)
    return found


def shape(state: Mapping[str, Tensor], key: str) -> str:
    """Of a tensor for a message, such as 3x64x4x4; "absent" where the state has no such key."""
    return "x".join(map(str, state[key].shape)) or "scalar" if key in state else "absent"


def wanted_shape(wanted: Mapping[str, tuple[str, Tensor]], key: str) -> str:
    """The same of what the network takes; "none" where it takes no such key."""
    return shape({key: wanted[key][1]}, key) if key in wanted else "none"
