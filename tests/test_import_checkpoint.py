"""scripts/import_checkpoint.py on files made in the official format: outputs of the official networks, and refusals."""

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from engine.build import build
from engine.checkpoint import Loaded, load_network, start_from
from engine.launch import launch
from engine.render import load_generator
from errors import UserError
from losses.comparison import Comparison
from models.discriminators import MultiscaleDiscriminator, PatchDiscriminator
from models.official import official_name
from models.resnet import ResnetGenerator
from models.spade import SPADEGenerator
from scripts.import_checkpoint import ORDERS, import_checkpoint, main
from tests import golden_fill
from tests.compose import CONFIGS, config, entry_file

CPU = torch.device("cpu")
FIVE = ("dataset=folder", "dataset.classes=5")


def official(network: nn.Module, path: Path, prefix: str = "") -> Path:
    """A network of ours as an official file: float32, official names, the blur filters that those files have."""
    state = {prefix + official_name(name): value.float() for name, value in network.state_dict().items()}
    if getattr(network, "antialias", False):
        state[f"{prefix}model.7.filt"] = torch.ones(4, 1, 3, 3)
    torch.save(state, path)
    return path


def imported(out: Path) -> nn.Module:
    return load_generator(Loaded.open(str(out)), CPU)


@torch.inference_mode()
def assert_golden(found: Tensor, file: str, key: str) -> None:
    """Float32 as the reference allows it for the SPADE generator in float32."""
    torch.testing.assert_close(found, golden_fill.outputs(file)[key], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("upsampling", "height", "width"), [("normal", 64, 64), ("more", 64, 128)])
def test_spade_gives_the_official_output(tmp_path: Path, upsampling: str, height: int, width: int):
    file = official(golden_fill.fill(SPADEGenerator(5, width=4, hidden=128)), tmp_path / "latest_net_G.pth", "module.")
    words = (*FIVE, f"model.generator.upsampling={upsampling}", f"dataset.size=[{height},{width}]")
    generator = imported(import_checkpoint([file], tmp_path / "out.pt", words))
    assert_golden(generator(golden_fill.ids(2, 5, height, width)), "spade.npz", f"spade_generator_{upsampling}")


@pytest.mark.parametrize(
    ("antialias", "key"), [(True, "cut_generator"), (False, "cut_generator_no_antialias")], ids=["antialias", "strided"]
)
def test_cut_gives_the_official_output(tmp_path: Path, antialias: bool, key: str):
    network = golden_fill.fill(ResnetGenerator(3, width=4, antialias=antialias))
    file = official(network, tmp_path / "latest_net_G.pth")
    generator = imported(import_checkpoint([file], tmp_path / "out.pt"))
    assert_golden(generator(golden_fill.image(2, 3, 64, 64).float()), "cut.npz", key)


def test_files_of_older_versions_fit(tmp_path: Path):
    spade = golden_fill.fill(SPADEGenerator(5, width=4, hidden=128))
    state = torch.load(official(spade, tmp_path / "G.pth"))
    state = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    state |= {key.removesuffix("_orig"): value / 3 for key, value in state.items() if key.endswith("weight_orig")}
    torch.save(state, tmp_path / "G.pth")
    words = (*FIVE, "dataset.size=[64,64]")
    generator = imported(import_checkpoint([tmp_path / "G.pth"], tmp_path / "out.pt", words))
    assert_golden(generator(golden_fill.ids(2, 5, 64, 64)), "spade.npz", "spade_generator_normal")

    state = torch.load(official(ResnetGenerator(3, width=4), tmp_path / "G.pth"))
    state |= {"model.2.running_mean": torch.ones(4), "model.2.num_batches_tracked": torch.tensor(1)}
    torch.save(state, tmp_path / "G.pth")
    import_checkpoint([tmp_path / "G.pth"], tmp_path / "x,y (1).pt")


@pytest.mark.parametrize("kept", ["newer names", "no weight_v", "no weight_v, the divided weight"])
def test_any_form_of_spectral_norm_is_read(tmp_path: Path, kept: str):
    """Ports to torch.nn.utils.parametrizations rename it; the first PyTorch versions saved no weight_v."""
    state = torch.load(official(golden_fill.fill(SPADEGenerator(5, width=4, hidden=128)), tmp_path / "G.pth"))
    bases = [key.removesuffix("_orig") for key in state if key.endswith("weight_orig")]
    for base in bases:
        weight, u, v = (state.pop(f"{base}_{part}") for part in ("orig", "u", "v"))
        if kept == "newer names":
            inner = base.removesuffix("weight") + "parametrizations.weight."
            state |= {f"{inner}original": weight, f"{inner}0._u": u, f"{inner}0._v": v}
        else:
            state |= {f"{base}_orig": weight, f"{base}_u": u}
        if kept.endswith("divided weight"):
            state[f"{base}_u"] = u + 0.1 * torch.randn(u.shape, generator=torch.Generator().manual_seed(0))
            state[base] = weight / (u @ weight.flatten(1) @ v)
    torch.save(state, tmp_path / "G.pth")
    words = (*FIVE, "dataset.size=[64,64]")
    generator = imported(import_checkpoint([tmp_path / "G.pth"], tmp_path / "out.pt", words))
    assert_golden(generator(golden_fill.ids(2, 5, 64, 64)), "spade.npz", "spade_generator_normal")


def test_the_newer_names_are_pytorchs():
    layer = nn.utils.parametrizations.spectral_norm(nn.Conv2d(2, 3, 3))
    names = {f"parametrizations.weight.{name}" for name in ("original", "0._u", "0._v")}
    assert set(layer.state_dict()) == {"bias", *names}


def edges_of(instance: Tensor) -> Tensor:
    """SPADE's get_edges."""
    edge = torch.zeros_like(instance, dtype=torch.bool)
    edge[:, :, :, 1:] |= instance[:, :, :, 1:] != instance[:, :, :, :-1]
    edge[:, :, :, :-1] |= instance[:, :, :, 1:] != instance[:, :, :, :-1]
    edge[:, :, 1:, :] |= instance[:, :, 1:, :] != instance[:, :, :-1, :]
    edge[:, :, :-1, :] |= instance[:, :, 1:, :] != instance[:, :, :-1, :]
    return edge.float()


def official_input(label: Tensor, instance: Tensor | None, label_nc: int, dont_care: bool) -> Tensor:
    """SPADE's preprocess_input, and so CFL's and MoNCE's: a label file's values, (B, 1, H, W), to the dense map."""
    label = torch.where(label == 255, label_nc, label)
    dense = torch.zeros(len(label), label_nc + dont_care, *label.shape[2:]).scatter_(1, label, 1.0)
    return dense if instance is None else torch.cat([dense, edges_of(instance)], 1)


def ade20k(values: Tensor) -> Tensor:
    """What prepare.py makes of ADE20K's values 0 (unknown), 1..150."""
    return torch.tensor([255, *range(150)])[values]


# raw values of a label file, label_nc, dont_care, and what this project's data set keeps of them
CONVENTIONS: dict[str, tuple[tuple[str, ...], list[int], int, bool, Callable[[Tensor], Tensor], bool]] = {
    # ADE20KDataset.postprocess computes label - 1 and 0 -> 150 into a variable of its own: the network gets the values
    "ade20k": (("dataset=ade20k",), [*range(151)], 150, True, ade20k, False),
    "cityscapes": (("dataset=cityscapes",), [*range(34)], 35, False, lambda values: values, True),
    "coco": (
        ("dataset=folder", "dataset.classes=182", "dataset.ignore=255", "dataset.instance=true"),
        [*range(182), 255],
        182,
        True,
        lambda values: values,
        True,
    ),
    "custom": (("dataset=folder", "dataset.classes=7"), [*range(7)], 7, False, lambda values: values, False),
}


@pytest.mark.parametrize("convention", CONVENTIONS)
@torch.inference_mode()
def test_a_label_means_to_imported_weights_what_it_meant_to_the_official_ones(tmp_path: Path, convention: str):
    words, values, label_nc, dont_care, kept, instances = CONVENTIONS[convention]
    generator = torch.Generator().manual_seed(0)
    raw = torch.tensor(values)[torch.randint(len(values), (2, 1, 64, 64), generator=generator)]
    instance = torch.randint(3, raw.shape, generator=generator) if instances else None
    image = golden_fill.image(2, 3, 64, 64).float()
    theirs = official_input(raw, instance, label_nc, dont_care)
    channels = theirs.shape[1]
    networks = SPADEGenerator(channels, width=2), MultiscaleDiscriminator(channels + 3, width=4)
    files = [official(networks[0], tmp_path / "G.pth"), official(networks[1], tmp_path / "D.pth")]
    words = (*words, "dataset.size=[64,64]", "model.generator.upsampling=normal")
    loaded = Loaded.open(str(import_checkpoint(files, tmp_path / "out.pt", words)))
    parts = build(loaded.cfg, loaded.inputs)
    found = {"generator": parts.generator, "discriminator": parts.discriminators["discriminator"]}
    for name, network in found.items():
        load_network(network, loaded.networks[name], name, loaded.path)
    batch: dict[str, Any] = {"name": ["a", "b"], "source": kept(raw).to(torch.uint8)}
    batch |= {} if instance is None else {"instance": instance}
    ours = loaded.inputs.to(batch, CPU, torch.float32)["source"]
    torch.testing.assert_close(found["generator"].eval()(ours), networks[0].eval()(theirs), rtol=0, atol=1e-5)
    scores = found["discriminator"].eval()(ours, image)
    for scale, expected in zip(scores, networks[1].eval()(theirs, image), strict=True):
        torch.testing.assert_close(scale, expected, rtol=0, atol=1e-5)


def test_every_data_set_has_a_word_about_its_official_channels():
    named = {path.stem for path in (CONFIGS / "dataset").glob("*.yaml")}
    assert named - ORDERS.keys() == {"shapes", "shapes_unpaired"}  # generated: no official network knows them
    assert ORDERS.keys() <= named
    permuted = {name: order for name, order in ORDERS.items() if isinstance(order, list)}
    assert {name: sorted(order) for name, order in permuted.items()} == {"ade20k": [*range(151)]}


@pytest.mark.parametrize(
    ("channels", "words", "told"),
    [
        (35, ("dataset=gta",), "dataset=gta: its official channels are not known: CFL released no loader"),
        (12, ("dataset=camvid",), "no official code reads CamVid; dataset=folder takes"),
        (19, ("dataset=celebahq_semantic",), "sets two channels a pixel"),
        (15, ("dataset=celebahq_edge",), r"CoCosNet's are in \[0, 1\]"),
        (20, ("dataset=deepfashion",), r"CoCosNet's are in \[0, 1\]"),
        (151, ("dataset=ade20k", "dataset.classes=151", "dataset.ignore=null"), "150 classes and one for unknown"),
        (151, ("dataset=ade20k", "dataset.name=scenes", "dataset.classes=149", "dataset.instance=true"), "150 classes"),
    ],
)
def test_an_unknown_order_is_refused_in_one_line(tmp_path: Path, channels: int, words: tuple[str, ...], told: str):
    file = official(SPADEGenerator(channels, width=2), tmp_path / "G.pth")
    with pytest.raises(UserError, match=told) as raised:
        import_checkpoint([file], tmp_path / "out.pt", words)
    assert "\n" not in str(raised.value) and not (tmp_path / "out.pt").exists()


def heads(width: int = 4) -> Comparison:
    channels = ResnetGenerator(3, width=width, blocks=5).feature_channels([0, 4, 8, 12, 16])
    return Comparison(nn.L1Loss(), [["fake", "source"]], channels, channels, patches=9, head="mlp", reduce="mean")


def test_cityscapes_doubles_six_times(tmp_path: Path):
    file = official(SPADEGenerator(36, width=2), tmp_path / "latest_net_G.pth")
    out = import_checkpoint([file], tmp_path / "out.pt", ["dataset=cityscapes"])
    loaded = Loaded.open(str(out))
    assert loaded.cfg.model.generator.upsampling == "more" and loaded.inputs.instance


@pytest.mark.parametrize("antialias", [True, False])
def test_discriminator_and_heads_come_along_and_start_a_run(tmp_path: Path, antialias: bool):
    generator, discriminator = ResnetGenerator(3, width=4, antialias=antialias), PatchDiscriminator(3, 4, 3, antialias)
    networks = {"G": generator, "D": discriminator, "F": heads()}
    files = [official(network, tmp_path / f"latest_net_{name}.pth") for name, network in networks.items()]
    out = import_checkpoint(files, tmp_path / "out.pt", ["dataset=horse2zebra"])
    loaded = Loaded.open(str(out))
    parts = build(loaded.cfg, loaded.inputs)
    start_from(str(out), parts.networks)
    found = {
        "G": parts.generator,
        "D": parts.discriminators["discriminator"],
        "F": next(module for module in parts.objective.modules() if isinstance(module, Comparison)),
    }
    for name, network in networks.items():
        for key, value in network.state_dict().items():
            assert torch.equal(found[name].state_dict()[key], value), f"{name}: {key}"


def test_spade_discriminator_of_a_wider_network(tmp_path: Path):
    generator, discriminator = SPADEGenerator(6, width=4), MultiscaleDiscriminator(9, width=8, scales=3)
    files = [official(generator, tmp_path / "G.pth"), official(discriminator, tmp_path / "D.pth")]
    out = import_checkpoint(files, tmp_path / "out.pt", [*FIVE, "dataset.ignore=255"])
    loaded = Loaded.open(str(out))
    assert (loaded.inputs.classes, loaded.inputs.ignore, loaded.inputs.source_channels) == (5, 255, 6)
    assert loaded.cfg.model.discriminator.scales == 3
    state = loaded.networks["discriminator"]
    assert all(torch.equal(state[key], value) for key, value in discriminator.state_dict().items())


def test_from_the_command_line_to_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file, out = official(ResnetGenerator(3, width=4, blocks=6), tmp_path / "latest_net_G.pth"), tmp_path / "horse.pt"
    monkeypatch.setattr(sys, "argv", ["import_checkpoint.py", str(file), str(out)])
    main()
    (tmp_path / "in").mkdir()
    Image.fromarray(np.full((70, 83, 3), 90, np.uint8)).save(tmp_path / "in" / "a.jpg")
    folder = entry_file("test.py").test(
        config(f"checkpoint={out}", f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}", name="test")
    )
    with Image.open(folder / "a.png") as picture:
        assert picture.size == (83, 70)


def test_a_mistake_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr(
        sys, "argv", ["import_checkpoint.py", str(foreign(tmp_path / "G.pth")), str(tmp_path / "out.pt")]
    )
    with pytest.raises(SystemExit, match="1"):
        main()
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and shown.count("\n") == 1


@pytest.mark.parametrize("last", ["D.pth", "D.pt", "dataset=horse2zebra"])
def test_no_weights_are_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str):
    monkeypatch.chdir(tmp_path)
    for name in ("G.pth", "D.pth", "D.pt"):
        official(ResnetGenerator(3, width=4), Path(name))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(sys, "argv", ["import_checkpoint.py", "G.pth", last])
    with pytest.raises(SystemExit, match="1"):
        main()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def expanded(value: Tensor) -> Tensor:
    """A size of any kind in a file of a few bytes."""
    return torch.zeros(1).expand(2**20, *value.shape)


MUTATIONS: list[Callable[[Tensor], Any]] = [
    lambda value: None, lambda value: 3, lambda value: "weights", lambda value: [value], lambda value: {"a": value},
    lambda value: value.flatten(), lambda value: value[None], lambda value: value.mT if value.ndim > 1 else value[:0],
    lambda value: value[:0], lambda value: value[..., :0], lambda value: torch.tensor(1.0), expanded,
    lambda value: value.new_zeros(1).expand(value.shape), lambda value: torch.cat([value, value]),
    lambda value: value.long(), lambda value: value > 0, lambda value: value.to(torch.complex64),
    lambda value: value.half(), lambda value: value.double(), lambda value: value.to(torch.float8_e4m3fn),
    lambda value: value.to_sparse(), lambda value: value.to("meta"), lambda value: torch.full_like(value, torch.nan),
    lambda value: torch.full_like(value, torch.inf), torch.zeros_like, lambda value: -value.abs() - 1,
    lambda value: value * 1e30, nn.Parameter,
]  # fmt: skip


def mutated(state: dict[str, Tensor], draw: random.Random) -> Any:
    """An official state dict with one to three faults, or something else altogether."""
    found: dict[Any, Any] = dict(state)
    for _ in range(draw.randint(1, 3)):
        key = draw.choice(list(found))
        kind = draw.randrange(10)
        if kind < 6 and isinstance(found[key], Tensor) and found[key].ndim and found[key].is_floating_point():
            found[key] = draw.choice(MUTATIONS)(found[key])
        elif kind == 6:
            del found[key]
            found = found or {"a": 1}
        elif kind == 7:
            other = [key.replace("weight", "w"), f"{key}.weight", f"x.{key}", 5, ("a", 1), "model.9999.weight", ""]
            found[draw.choice(other) if isinstance(key, str) else 6] = found.pop(key)
        elif kind == 8:
            found[f"module.{key}"] = draw.choice(MUTATIONS)(torch.ones(3, 3))
        else:
            start = str(key).split(".")[0]
            found = {name: value for name, value in found.items() if not str(name).startswith(start)} or {"a": 1}
    return draw.choice([[found], None, torch.ones(2), {"state_dict": found}]) if draw.randrange(20) == 0 else found


def attempt(folder: Path, files: list[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> bool:
    """Import by the command line; whether it succeeded. Anything but success and an error of exit code 1 is raised."""
    line = ["import_checkpoint.py", *(str(folder / name) for name in files), str(folder / "out.pt"), *words]
    monkeypatch.setattr(sys, "argv", line)
    try:
        launch(main)
    except SystemExit as end:
        assert end.code == 1
        return False
    return True


def fuzz(folder: Path, count: int, seed: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    draw = random.Random(seed)
    words = [*FIVE, "dataset.size=[32,32]", "model.generator.upsampling=normal"]
    spade = {"G": SPADEGenerator(5, width=1), "D": MultiscaleDiscriminator(8, width=2)}
    cut = {"G": ResnetGenerator(3, width=1, blocks=5), "D": PatchDiscriminator(3, 1, 3), "F": heads(1)}
    for at in range(count):
        networks, own = draw.choice([(spade, words), (cut, [])])
        files = ["G", draw.choice(list(networks))][: draw.randint(1, 2)]
        names = [f"{name}.pth" for name in dict.fromkeys(files)]
        victim = draw.choice(names)
        for name in names:
            official(networks[name[0]], folder / name)
        if draw.randrange(8):
            torch.save(mutated(torch.load(folder / victim), draw), folder / victim)
        else:
            data = bytearray((folder / victim).read_bytes())
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            (folder / victim).write_bytes(data[: draw.choice([len(data), draw.randrange(len(data))])])
        (folder / "out.pt").unlink(missing_ok=True)
        before = repr(draw.getstate())[:40]
        try:
            done = attempt(folder, names, monkeypatch, *own)
        except Exception as error:
            raise AssertionError(f"case {at} of seed {seed} ({names}, {victim}, {before})") from error
        shown = capsys.readouterr()
        assert done == (folder / "out.pt").exists(), f"case {at} of seed {seed}"
        if done:
            networks = torch.load(folder / "out.pt", weights_only=True)["networks"]
            values = [value for network in networks.values() for value in network.values()]
            assert all(value.isfinite().all() for value in values), f"case {at} of seed {seed}"
        else:
            assert shown.err.startswith("error: ") and shown.err.count("\n") == 1, shown.err


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", [2, 4, 5])
def test_damaged_official_files_end_in_one_line(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    fuzz(tmp_path, 27, seed, monkeypatch, capsys)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", [2, 3, 4, 5])
def test_many_damaged_official_files(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    fuzz(tmp_path, 150, seed, monkeypatch, capsys)


@pytest.mark.parametrize(
    "words",
    [
        ["dataset=nowhere"],
        ["dataset=5"],
        ["dataset=folder", "dataset.classes=five"],
        ["dataset=folder", "dataset.classes=[5]"],
        ["dataset=folder", "dataset.classes=5", "dataset.ignore=x"],
        ["dataset=folder", "dataset.classes=5", "dataset.instance=2"],
        ["dataset=folder", "dataset.classes=5", "dataset.palette=none.txt"],
        ["dataset=folder", "dataset.classes=5", "dataset.size=64"],
        ["dataset=folder", "dataset.classes=5", "dataset._target_=os.system"],
        ["dataset=folder", "dataset.classes=5", "model.generator.upsampling=none"],
        ["dataset=folder", "dataset.classes=5", "model.generator.width=0"],
        ["dataset=folder", "dataset.classes=5", "model.generator.width=-4"],
        ["dataset=folder", "dataset.classes=5", "model=cut"],
        ["dataset=folder", "dataset.classes=5", "model.generator.blocks=3"],
        ["dataset=folder", "dataset.classes=5", "train.lr=ten"],
        ["dataset=folder", "dataset.classes=5", "a b"],
        ["dataset=folder", "dataset.classes=5", "=3"],
        ["dataset=folder", "dataset.classes=5", "experiment=cut"],
    ],
)
def test_wrong_words_end_in_one_line(tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any):
    official(SPADEGenerator(5, width=1), tmp_path / "G.pth")
    assert not attempt(tmp_path, ["G.pth"], monkeypatch, *words)
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and shown.count("\n") == 1


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path):
    file = official(ResnetGenerator(3, width=1), tmp_path / "G.pth")
    with pytest.raises(UserError, match=r"G.pth/out.pt: its folder cannot be made"):
        import_checkpoint([file], file / "out.pt")


def spade(path: Path) -> Path:
    return official(SPADEGenerator(6, width=2), path)


def damaged(path: Path) -> Path:
    path.write_bytes(b"PK\x03\x04 half a file")
    return path


def foreign(path: Path) -> Path:
    torch.save(nn.Linear(2, 2).state_dict(), path)
    return path


def vectors(path: Path) -> Path:
    torch.save({"fc.weight": torch.ones(16, 256), "conv_img.weight": torch.ones(3, 4, 3, 3)}, path)
    return path


def odd(path: Path) -> Path:
    torch.save({"model.0.weight": torch.ones(4), 3: torch.ones(1)}, path)
    return path


def nested(path: Path) -> Path:
    torch.save({"epoch": 3, "state_dict": {}}, path)
    return path


def shorter(path: Path) -> Path:
    state = SPADEGenerator(6, width=2).state_dict()
    torch.save({official_name(name): value for name, value in state.items() if not name.startswith("up_2")}, path)
    return path


@pytest.mark.parametrize(
    ("makers", "words", "told"),
    [
        ([spade], (), r"takes 6 channels; say what they are: dataset=ade20k is 151"),
        ([spade], FIVE, r"takes 6 channels, where dataset=folder makes 5: dataset.classes=5"),
        ([spade], ("dataset=ade20k",), r"takes 6 channels, where dataset=ade20k makes 151"),
        ([damaged], (), r"not a file of PyTorch's weights"),
        ([foreign], (), r"2 entries such as weight, bias: none of the official generators"),
        ([nested], (), r"holds no plain state dict"),
        ([shorter], (*FIVE, "dataset.instance=true"), r"G0.pth: official checkpoint does not fit SPADEGenerator"),
        ([spade, spade], FIVE, r"one generator was wanted"),
        ([lambda path: official(heads(), path)], (), r"one generator was wanted"),
        (
            [spade, lambda path: official(heads(), path)],
            (*FIVE, "dataset.ignore=9"),
            r"G1.pth: holds projection heads, which this config has not; add objective=cut encoder=generator",
        ),
        ([lambda path: path], (), r"No such file"),
        ([spade], ("dataset=shapes",), r"dataset=shapes: is generated"),
        ([spade], ("dataset=folder", "dataset.labels=false", "dataset.channels=3"), r"has 6 where dataset.channels=3"),
        ([spade], ("dataset=horse2zebra",), r"setting=paired: compares the generated image with its target"),
        ([vectors], FIVE, r"starts from a style vector \(--use_vae\)"),
        ([odd], (), r"none of the official generators"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, makers: list, words: tuple[str, ...], told: str):
    files = [make(tmp_path / f"G{index}.pth") for index, make in enumerate(makers)]
    with pytest.raises(UserError, match=told):
        import_checkpoint(files, tmp_path / "out.pt", words)
    assert not (tmp_path / "out.pt").exists()
