"""scripts/import_checkpoint.py on files made in the official format: outputs of the official networks, and refusals."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from engine.build import build
from engine.checkpoint import Loaded, start_from
from engine.render import load_generator
from errors import UserError
from losses.comparison import Comparison
from models.discriminators import MultiscaleDiscriminator, PatchDiscriminator
from models.official import official_name
from models.resnet import ResnetGenerator
from models.spade import SPADEGenerator
from scripts.import_checkpoint import import_checkpoint, main
from tests import golden_fill
from tests.compose import config, entry_file

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
