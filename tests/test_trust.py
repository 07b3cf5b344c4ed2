"""What comes out of files is data: no command runs what a checkpoint names, a user's own module still works."""

import json
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from data.labels import score_map
from engine.checkpoint import Loaded
from engine.inputs import Inputs
from engine.trust import Trust, config_of, imported, parsed, slots, targets
from errors import UserError
from evaluate import evaluate
from models.segmenters import load_segmenter
from models.weights import check_whole, read_state
from report import report
from scripts.analyze import analyze
from scripts.export import export
from tests.compose import CONFIGS, TINY, config, entry_file
from train import train

translate = entry_file("test.py").test
MARK = "MARK"  # stands for the path of a file that every payload would make


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two steps, and its checkpoint's content."""
    folder = tmp_path_factory.mktemp("run") / "seed0"
    train(config(*TINY), folder)
    return torch.load(folder / "last.pt", weights_only=True)


@pytest.fixture(scope="module")
def commands():
    """Every command that builds something from a checkpoint: (name, function, its config)."""
    found = [
        ("test", translate, config("checkpoint=x", name="test")),
        ("evaluate", evaluate, config("checkpoint=x", "metrics=[swd]", "images=2", name="evaluate")),
        ("export", export, config("checkpoint=x", name="export")),
        ("analyze", analyze, config("checkpoint=x", "images=1", name="analyze")),
    ]
    return {name: (function, cfg) for name, function, cfg in found}


def written(folder: Path, state, change=lambda cfg: None, **parts) -> Path:
    """A run folder of the checkpoint with a changed config."""
    cfg = json.loads(state["config"])
    change(cfg)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({**state, "config": json.dumps(cfg), **parts}, folder / "last.pt")
    (folder / "config.yaml").write_text(json.dumps(cfg))
    return folder


def put(key: str, value):
    """A change of a config: `value` at a dotted key; MARK in it becomes the path of the mark."""

    def change(cfg, mark="mark"):
        node = cfg
        *path, last = key.split(".")
        for name in path:
            node = node[int(name)] if isinstance(node, list) else node.setdefault(name, {})
        node[int(last) if isinstance(node, list) else last] = json.loads(json.dumps(value).replace(MARK, mark))

    return change


TOUCH = {"_target_": "os.system", "command": f"touch {MARK}"}
PAYLOADS = {
    "the generator itself": put("model.generator", TOUCH),
    "an argument": put("model.generator.width", TOUCH),
    "an argument of a data set": put("dataset.size", TOUCH),
    "a list": put("encoder.layers", [TOUCH]),
    "a list in a list": put("objective.contrast.term.pairs", [["fake", TOUCH]]),
    "a nested loss": put("objective.contrast.term.loss", TOUCH),
    "a new key": put("objective.gan.term.score", {"a": {"b": [{"c": TOUCH}]}}),
    "a term": put("objective.more", {"weight": 1, "term": TOUCH}),
    "the trunk": put("train", {**TOUCH}),
    "deviations": put("deviations", [TOUCH]),
    "open": put("encoder.size", {"_target_": "builtins.open", "file": MARK, "mode": "w"}),
    "copyfile": put("dataset.name", {"_target_": "shutil.copyfile", "src": "/dev/null", "dst": MARK}),
    "hub": put("model.discriminator.width", {"_target_": "torch.hub.load", "repo_or_dir": MARK, "source": "local"}),
    "pickles": put("model.generator.width", {"_target_": "numpy.load", "file": MARK, "allow_pickle": True}),
    "a function of ours": put("model.generator.width", {"_target_": "models.weights.load", "path": MARK}),
    "a record of ours": put("encoder", {"_target_": "models.weights.verified", "path": MARK}),
    "through a module of ours": put("encoder", {"_target_": "models.encoders.torch.hub.load", "repo_or_dir": MARK}),
    "another slot's": put("setting._target_", "data.folders.Paired"),
    "an import": put("loss._target_", "hostile_module.run"),
    "no text": put("loss._target_", ["os.system"]),
    "a target of a partial": put("model.generator._partial_", TOUCH),
    "a number for true": put("model.generator._partial_", 1),
    "positional": put("model.generator._args_", [1]),
    "not recursive": put("dataset._recursive_", False),
    "conversion": put("dataset._convert_", "all"),
    "a partial that is none": put("loss._partial_", True),
    "an unknown key": put("hydra.run.dir", MARK),
    "the environment": put("dataset.name", "${oc.env:HOME}"),
    "a resolver": put("dataset.size", "${enlarged:[1,2]}"),
    "the environment in a list": put("deviations", ["a${oc.env:HOME}b"]),
}
SIZES = {
    "blocks": put("model.generator.width", 10**9),
    "hidden": put("model.generator.hidden", 10**9),
    "width": put("model.generator.width", 4096),  # allowed, but not what the tensors are
    "stages": put("model.discriminator.stages", 10**9),
    "size": put("dataset.size", [100_000, 100_000]),
    "pixels": put("dataset.size", [16384, 16384]),
    "lengths": put("dataset.lengths", {"test": 10**9, "train": 8}),
    "nan": put("objective.gan.weight", float("nan")),
    "huge": put("seed", 10**40),
    "no length": put("dataset.lengths", {"test": None, "train": 8}),
    "no constructor": put("model.discriminator", True),
    "deep": put("deviations_data", json.loads("[" * 60 + "]" * 60)),
    "long": put("deviations", ["x"] * 600),
    "many": put("paper", {f"a{n}": 1 for n in range(200)}),
    "alike": put("encoder.layers", ["conv0"] * 600),
}


@pytest.mark.parametrize("name", PAYLOADS)
def test_no_command_runs_what_a_checkpoint_names(trained, commands, tmp_path, monkeypatch, name):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "hostile_module.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')")
    folder = written(tmp_path / "run", trained, lambda cfg: PAYLOADS[name](cfg, str(tmp_path / "mark")))
    for function, cfg in commands.values():
        with pytest.raises(UserError) as refused:
            function(OmegaConf.merge(cfg, {"checkpoint": str(folder)}))
        line = str(refused.value)
        assert "\n" not in line and line.startswith("checkpoint=") and os.environ["HOME"] not in line
    assert not (tmp_path / "mark").exists() and "hostile_module" not in sys.modules
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "last.pt"]  # and nothing was made


def test_training_from_a_checkpoint_takes_its_weights_alone(trained, tmp_path):
    folder = written(
        tmp_path / "run", trained, lambda cfg: PAYLOADS["the generator itself"](cfg, str(tmp_path / "mark"))
    )
    assert train(config(*TINY, "train.steps=1", f"checkpoint={folder}"), tmp_path / "new") == 1
    assert not (tmp_path / "mark").exists()


USED = {name: ["analyze"] for name in ("stages", "no constructor")}  # by which commands; the others read it not
USED |= {name: ["evaluate"] for name in ("size", "pixels", "lengths", "no length")}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_of_a_file_are_bounded_before_anything_is_built(trained, commands, tmp_path, name):
    folder = written(tmp_path / "run", trained, SIZES[name])
    used = USED.get(name, commands)
    for command in used:
        function, cfg = commands[command]
        with pytest.raises(UserError) as refused:
            function(OmegaConf.merge(cfg, {"checkpoint": str(folder)}))
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"step": "../../x"}, "its step is"),
        ({"step": 10**30}, "step 1000"),
        ({"config": 3}, "its config is '3', a text"),
        ({"config": "{"}, "not a whole checkpoint"),
        ({"inputs": json.dumps({"source_channels": 10**9})}, "source_channels is"),
        ({"inputs": None}, "its inputs"),
        ({"networks": [1]}, "its networks is"),
        ({"networks": {"generator": {"a": 1}}}, "no set of tensors"),
        ({"networks": {"generator": {"a": torch.zeros(1).expand(10**9, 10**6)}}}, "larger than what is stored of it"),
        ({"networks": {"generator": {"a": torch.zeros(2, 2, device="meta")}}}, "no plain tensor"),
        ({"encoder": [1]}, "its encoder is no text"),
        ({"networks": {3: {}}}, "names that are no text"),
        ({"best": {"metric": "fid"}}, "its best is no text"),
        ({"inputs": Inputs(8, 3, True, 200, None, False).json()}, "are not its classes and edges"),
        ({"average": {"generator.a": 3}}, "no plain tensor"),
    ],
)
def test_a_checkpoint_of_another_shape_is_one_line(trained, tmp_path, parts, words):
    with pytest.raises(UserError, match=words) as refused:
        Loaded.open(str(written(tmp_path / "run", trained, **parts)))
    assert "\n" not in str(refused.value)


def test_a_compressed_checkpoint_is_refused(tmp_path):
    torch.save({"a": torch.zeros(10**6)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as whole, zipfile.ZipFile(tmp_path / "b.pt", "w", 8) as small:
        for part in whole.infolist():
            small.writestr(part.filename, whole.read(part))
    for open_it in (lambda path: Loaded.open(str(path)), lambda path: read_state(path, "segmenter")):
        with pytest.raises(UserError, match="compressed"):
            open_it(tmp_path / "b.pt")


def test_what_a_file_says_of_its_machine_is_not_used(trained, tmp_path):
    cache = tmp_path / "cache"

    def change(cfg):
        cfg["dataset"] = {
            "_target_": "data.folders.Paired", "_partial_": True, "name": "own", "root": "x", "cache": str(cache),
        }  # fmt: skip
        cfg |= {"offline": False, "weights_dir": "/somewhere", "code": "evil.py", "trust": True}
        cfg["train"] |= {"workers": 10**6, "device": "nowhere"}

    cfg = Loaded.open(str(written(tmp_path / "run", trained, change))).cfg
    assert cfg.dataset.cache is None and cfg.weights_dir is None and cfg.offline and cfg.code is None and not cfg.trust
    assert cfg.train.workers == 0 and not cache.exists()


def own_module(folder: Path, name: str) -> Path:
    file = folder / f"{name}.py"
    file.write_text(
        "import os\nfrom os import system\nfrom models.spade import SPADEGenerator\n\n\n"
        "class Mine(SPADEGenerator):\n    pass\n"
    )
    return file


def test_a_users_own_module_works_where_the_command_names_it(tmp_path, capsys):
    code, folder = own_module(tmp_path, "own_file"), tmp_path / "run"
    words = (*TINY, f"code={code}", "model.generator._target_=own_file.Mine")
    train(config(*words, "train.steps=1"), folder)
    train(config(*words), folder)  # resumed
    asked = [f"checkpoint={folder}", "device=cpu"]
    with pytest.raises(UserError, match=r"run own_file\.Mine \(model\.generator\).*add code=FILE\.py"):
        translate(config(*asked, name="test"))
    assert len(list(translate(config(*asked, f"code={code}", name="test")).glob("*.png"))) == 2
    capsys.readouterr()
    assert len(list(translate(config(*asked, "trust=true", name="test")).glob("*.png"))) == 2
    assert f"trust=true: checkpoint={folder}/last.pt may run own_file.Mine (model.generator)" in capsys.readouterr().out
    evaluate(config(*asked, f"code={code}", "metrics=[swd]", "images=2", name="evaluate"))


def test_code_is_a_file_a_module_or_a_list_of_both(tmp_path, monkeypatch):
    file = own_module(tmp_path, "own_beside")
    own_module(tmp_path, "own_module")
    monkeypatch.syspath_prepend(tmp_path)
    for code, names in ((file, {"own_beside.Mine"}), ("own_module", {"own_module.Mine"})):
        assert Trust.of(OmegaConf.create({"code": str(code)})).names == names
    assert len(Trust.of(OmegaConf.create({"code": [str(file), "own_module"]})).names) == 2


def test_code_makes_legal_what_the_module_itself_defines_and_nothing_else(tmp_path):
    trust = Trust.of(OmegaConf.create({"code": str(own_module(tmp_path, "own_names"))}))
    assert trust.names == {"own_names.Mine"}
    text = '{"model": {"generator": {"_target_": "own_names.%s"}}}'
    config_of(text % "Mine", "it", trust)
    for name in ("system", "os.system", "SPADEGenerator", "Mine.forward"):
        with pytest.raises(UserError, match="wants to run"):
            config_of(text % name, "it", trust)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("nowhere.py", "no such file"),
        ("nowhere_at_all", "cannot be imported"),
        ("losses.py", "another module is called losses"),
        ("broken.py", r"cannot be imported \(division by zero\)"),
    ],
)
def test_code_that_cannot_be_imported_is_one_line(tmp_path, monkeypatch, code, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "losses.py").write_text("")
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(UserError, match=words):
        imported(code)


def test_the_list_of_legal_constructors_is_what_configs_names():
    """Every experiment's own config is let in; what a slot may be called does not spread to another."""
    for experiment in ("demo", "cyclegan", "cfl/table1/vgg_patchnce"):
        plain = OmegaConf.to_container(config(f"experiment={experiment}"), resolve=True, enum_to_str=True)
        config_of(json.dumps(plain), experiment, Trust())
    lsesim = config("objective=lsesim", "setting=unpaired", "model=cut", "dataset=shapes_unpaired")
    config_of(json.dumps(OmegaConf.to_container(lsesim, resolve=True, enum_to_str=True)), "lsesim", Trust())
    assert set(slots()["model.generator"]) == {"models.resnet.ResnetGenerator", "models.spade.SPADEGenerator"}
    assert slots()["objective.*.term.loss"] == slots()["loss"]
    named = {target for names in slots().values() for target in names}
    assert not any(target.startswith("models.weights") for target in named)


def test_texts_from_files_go_one_way_only():
    """No other place of the code parses a config out of a file, instantiates one, or unpickles."""
    root, found = CONFIGS.parent, set()
    folders = ("data", "engine", "losses", "metrics", "models", "results", "scripts")
    files = [*root.glob("*.py"), *(file for folder in folders for file in (root / folder).rglob("*.py"))]
    dangerous = (
        "instantiate(",
        "OmegaConf.create(",
        "OmegaConf.load(",
        "yaml.load(",
        "allow_pickle=True",
        "pickle.load",
    )
    for file in files:
        text = file.read_text()
        found |= {(file.relative_to(root).as_posix(), word) for word in dangerous if word in text}
        assert text.count("torch.load(") == text.count("weights_only=True)"), file
        assert text.count("np.load(") == text.count("allow_pickle=False"), file
    assert found == {
        ("engine/build.py", "instantiate("),  # of what config_of or the command line gave
        ("engine/checkpoint.py", "OmegaConf.create("),  # of this run's own config
        ("engine/trust.py", "yaml.load("),  # with a safe loader
        ("scripts/reproduce.py", "OmegaConf.create("),  # of the command line's words
        ("evaluate.py", "OmegaConf.create("),  # of values computed there
        ("evaluate.py", "OmegaConf.load("),  # of configs/evaluate.yaml
    }


def test_a_report_shows_a_hostile_run_as_data(trained, tmp_path):
    """config.yaml is read, its data set not opened; one with interpolations is left out with a warning."""
    mark = str(tmp_path / "mark")
    for name, change in {
        "target": lambda cfg: put("dataset", {**TOUCH, "name": "shapes", "size": [64, 64]})(cfg, mark),
        "environment": put("deviations", ["${oc.env:HOME}"]),
    }.items():
        folder = written(tmp_path / "runs" / name, trained, change)
        measured(folder)
    page = report(config(f"runs={tmp_path / 'runs'}", name="report")).read_text()
    assert not Path(mark).exists() and os.environ["HOME"] + '"' not in page
    assert "interpolation" in page and "wants to run os.system (dataset)" in page


def measured(folder: Path) -> None:
    """A rendered image and its report, so that the gallery asks for the data set."""
    from tests.run_folders import add_pictures, evaluation

    add_pictures(folder, {"test_00000": 3})
    evaluation(folder, 100, {"fid": {"value": 1.0, "better": "lower"}})


def test_an_alias_bomb_is_refused(tmp_path):
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]" for n in range(1, 30)]
    with pytest.raises(UserError, match="too large or nested too deeply"):
        parsed("\n".join(lines), "config.yaml")


def test_a_run_folder_is_compared_without_resolving_its_config(tmp_path):
    (tmp_path / "config.yaml").write_text("run: ${oc.env:HOME}\n")
    train(config(*TINY, "train.steps=1"), tmp_path)  # as where it is damaged, it is written anew
    assert os.environ["HOME"] not in (tmp_path / "config.yaml").read_text()


def test_a_segmenter_that_is_a_program_needs_trust(tmp_path):
    class Plain(torch.nn.Module):
        def forward(self, x):
            return x.mean(1, keepdim=True).expand(-1, 4, -1, -1) * torch.arange(4).view(4, 1, 1)

    program = torch.export.export(Plain(), (torch.zeros(2, 3, 8, 8),))
    torch.export.save(program, tmp_path / "a.pt2")
    torch.jit.save(torch.jit.trace(Plain(), torch.zeros(2, 3, 8, 8)), tmp_path / "a.pt")
    for name in ("a.pt2", "a.pt"):
        with pytest.raises(UserError, match=r"is a program .* can run any code .* trust=true opens it"):
            load_segmenter(tmp_path / name)
    assert load_segmenter(tmp_path / "a.pt", trust=True).num_classes == 4


def test_a_file_of_pickled_code_is_no_segmenter(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'mark'}",)

    torch.save({"weights": Hostile(), "config": "{}"}, tmp_path / "a.pt")
    np.save(tmp_path / "a.npy", np.array([Hostile()], dtype=object))
    with pytest.raises(UserError, match="not a file of PyTorch's weights"):
        load_segmenter(tmp_path / "a.pt")
    assert not (tmp_path / "mark").exists()


def test_inputs_of_another_shape_are_refused():
    good = json.loads(Inputs(8, 3, True, 8, None, False).json())
    assert Inputs.from_json(json.dumps(good)) == Inputs(8, 3, True, 8, None, False)
    for key, value in (("classes", 10**9), ("ignore", -1), ("labels", 1), ("target_channels", 0), ("more", 1)):
        with pytest.raises(ValueError):
            Inputs.from_json(json.dumps({**good, key: value}))
    with pytest.raises(ValueError, match="labels is missing"):
        Inputs.from_json(json.dumps({key: good[key] for key in good if key != "labels"}))


def test_ids_that_are_left_out_must_be_there():
    with pytest.raises(UserError, match=r"dataset.unscored=\[9\]: 9 is no id of the data set, which has 0 to 3"):
        score_map(4, unscored=[9])
    assert score_map(0, unscored=[9]) == [255] * 256 and score_map(4, unscored=[255])[3] == 3


def test_a_tensor_that_repeats_a_few_bytes_is_refused():
    check_whole({"a": torch.zeros(4, 4).t(), "b": torch.zeros(0)}, "x")
    with pytest.raises(UserError, match="4,000 bytes of tensors"):
        check_whole({"a": torch.zeros(1).expand(1000)}, "x")


def test_targets_finds_every_node_that_hydra_would_call():
    found = [key for key, _, _ in targets({"a": [{"_target_": 1}, {"b": {"_args_": []}}], "c": {"d": 1}})]
    assert found == ["a.0", "a.1.b"]
