"""Names of the official SPADE and CUT checkpoints (also CFL's and both halves of MoNCE's) for our parameters.

Official files are plain state dicts. SPADE's have the old form of spectral norm: weight_orig, weight_u, weight_v; CUT's
hold the fixed blur filters as buffers `filt`, which ours do not need.
"""

import re
from collections.abc import Mapping

from torch import Tensor, nn

from errors import UserError

SPECTRAL = {"weight": "weight_orig", "u": "weight_u", "v": "weight_v", "bias": "bias"}
RESIDUAL = {"first": "conv_block.1", "second": "conv_block.5"}
RENAMES = {"norm": "param_free_norm", "shared": "mlp_shared.0", "gamma": "mlp_gamma", "beta": "mlp_beta"}


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


def recognise(state: Mapping[str, Tensor]) -> tuple[str, str, dict[str, int | str | bool]]:
    """Kind, model and settings of an official network, read off its names and shapes.

    Returns: generator, discriminator or heads; spade or cut; the keys of configs/model/<model>.yaml that differ between
    networks of this kind, with `channels` (and `output_channels`) that follow from the data. Of SPADE's upsampling only
    "most" is told: normal and more have the same parameters.
    Raises: UserError for any other state dict.
    """
    if "fc.weight" in state and "conv_img.weight" in state:
        if state["fc.weight"].ndim != 4:
            raise UserError("a SPADE generator that starts from a style vector (--use_vae), which is not built here")
        most = "up_4.conv_0.weight_orig" in state
        return (
            "generator",
            "spade",
            {
                "channels": state["fc.weight"].shape[1],
                "output_channels": state["conv_img.weight"].shape[0],
                "width": state["conv_img.weight"].shape[1] * (2 if most else 1),
                "hidden": state["head_0.norm_0.mlp_shared.0.weight"].shape[0],
                **({"upsampling": "most"} if most else {}),
            },
        )
    if "discriminator_0.model0.0.weight" in state:
        first = state["discriminator_0.model0.0.weight"]
        scales = len({key.partition(".")[0] for key in state})
        return "discriminator", "spade", {"channels": first.shape[1], "width": first.shape[0], "scales": scales}
    if "mlp_0.0.weight" in state:
        return "heads", "cut", {}
    convolutions = [key for key in state if re.fullmatch(r"model\.\d+(\.conv_block\.1)?\.weight", key)]
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


def position(key: str) -> int:
    """Of the layer model.N in its stack."""
    return int(key.split(".")[1])


def convert(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """An official state dict under our names, ready for `network.load_state_dict`.

    What PyTorch's older versions kept besides, or did not keep, does not count: the normalised weight beside
    weight_orig, running statistics of instance norms, counts of batches.
    Raises UserError for keys that are missing, left over or of another shape: the file belongs to another network.
    """
    state = {key: value for key, value in state.items() if not key.endswith(".filt")}
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


def shape(state: Mapping[str, Tensor], key: str) -> str:
    """Of a tensor for a message, such as 3x64x4x4; "absent" where the state has no such key."""
    return "x".join(map(str, state[key].shape)) or "scalar" if key in state else "absent"


def wanted_shape(wanted: Mapping[str, tuple[str, Tensor]], key: str) -> str:
    """The same of what the network takes; "none" where it takes no such key."""
    return shape({key: wanted[key][1]}, key) if key in wanted else "none"
