"""The table scripts: their runs are the papers' rows, in both budgets, and what is finished is skipped."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from engine.checks import encoded, validate
from engine.preempt import EXIT_CODE
from scripts import run_folder
from tests.compose import CONFIGS, config
from tests.test_rows import SAME

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(path.name for paper in ("cfl", "monce") for path in (ROOT / "scripts").glob(f"{paper}_*.sh"))
RUNS = {  # distinct trainings of one seed
    "cfl_table1.sh": 24,
    "cfl_table2.sh": 13,
    "cfl_table3.sh": 9,
    "cfl_fig8.sh": 2,
    "cfl_text.sh": 7,
    "monce_table1.sh": 15,
    "monce_table2.sh": 10,
    "monce_table3.sh": 20,
    "monce_table4.sh": 6,
    "monce_fig2.sh": 2,
    "monce_fig3.sh": 22,
    "monce_fig7.sh": 48,
}


def call(script, *words, root=ROOT, ok=True, **variables):
    """Run a script of a project's root; returns its output."""
    own = ("JOB", "SEEDS", "LIST", "BUDGET", "GPUS", "TRAIN", "EVALUATE", "BEST", "EVERY")
    environment = {name: value for name, value in os.environ.items() if name not in own}
    done = subprocess.run(
        [f"scripts/{script}", *words],
        cwd=root,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode == 0) is ok, done.stdout + done.stderr
    return done.stdout + done.stderr


def runs(script, *datasets, **variables):
    """[data set, experiment, word, ...] of every run."""
    return [line.split()[1:] for line in call(script, *datasets, LIST="1", **variables).splitlines()]


def test_there_is_a_script_for_every_table_and_figure():
    assert {name: len(runs(name)) for name in SCRIPTS} == RUNS


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_lists_rows_that_compose(script):
    paper, _, name = script.removesuffix(".sh").partition("_")
    listed = {experiment for _, experiment, *_ in runs(script)}
    written = {
        path.relative_to(CONFIGS / "experiment").with_suffix("").as_posix()
        for path in (CONFIGS / "experiment" / paper / name).glob("*.yaml")
    }
    assert {SAME.get(experiment, experiment) for experiment in written} <= listed
    assert not listed & SAME.keys()  # one folder, one command: a second name's words would undo the first one's mark
    found = runs(script, BUDGET="smoke")
    assert all(dataset.startswith("shapes") for dataset, *_ in found)
    for dataset, experiment, *words in (found[0], found[len(found) // 2], found[-1]):
        cfg = config(f"experiment={experiment}", f"dataset={dataset}", *words)
        validate(cfg, overrides=words)
        assert "smoke" in cfg.deviations[0]
        read = [name for name, node in cfg.objective.items() if encoded(node.term)]
        assert not read or not any(name in cfg.encoder._target_ for name in ("vgg", "resnet"))  # no file to download


def test_seeds_and_data_sets_multiply():
    found = runs("cfl_table1.sh", "camvid", "gta", SEEDS="0 3")
    assert len(found) == 24 and {run[0] for run in found} == {"camvid", "gta"}
    assert {run[2] for run in found} == {"seed=0", "seed=3"}
    assert len(runs("monce_table1.sh", BUDGET="smoke")) == 5  # one generated data set stands for all three
    assert {run[0] for run in runs("monce_fig3.sh", "horse2zebra")} == {"horse2zebra"}


@pytest.mark.parametrize(
    ("dataset", "generated"),
    [
        ("cityscapes_unpaired", "shapes_unpaired"),
        ("camvid_unpaired", "shapes_unpaired"),
        ("camvid_dusk", "shapes_unpaired"),
        ("winter2summer", "shapes_unpaired"),
        ("camvid", "shapes"),
    ],
)
def test_unpaired_sets_are_unpaired_in_smoke_too(dataset, generated):
    assert {run[0] for run in runs("monce_table1.sh", dataset, BUDGET="smoke")} == {generated}


@pytest.mark.parametrize(
    ("script", "words", "variables", "told"),
    [
        ("cfl_table1.sh", [], {"BUDGET": "tiny"}, "BUDGET=tiny: full or smoke was wanted"),
        ("cfl_table1.sh", ["gta"], {"JOB": "6"}, "JOB=6: a number from 0 to 5 was wanted"),
        ("cfl_table1.sh", ["gta"], {"JOB": "-1"}, "JOB=-1: a number from 0 to 5"),
        ("cfl_table1.sh", ["gta"], {"JOB": "x"}, "JOB=x: a number from 0 to 5"),
        ("cfl_table1.sh", [], {"BEST": "best"}, "BEST=best: val or test was wanted"),
        ("cfl_table1.sh", [], {"EVERY": "0"}, "EVERY=0: a number of steps, 1 or more"),
        ("monce_fig3.sh", ["gta"], {"LIST": "1"}, "no run on gta; its data sets are horse2zebra ade20k"),
    ],
)
def test_a_wrong_value_is_one_line_and_nothing_is_run(miniature, script, words, variables, told):
    root, own = miniature
    shown = call(script, *words, root=root, ok=False, **own, **variables)
    assert told in shown and len(shown.splitlines()) == 1
    assert not (root / "calls").exists()


@pytest.fixture
def miniature(tmp_path):
    """A root whose python notes its words and makes the files that the scripts look for; row l1 always fails."""
    (tmp_path / "scripts").mkdir()
    for name in ("table.sh", "cfl_table1.sh", "monce_fig2.sh", "monce_fig3.sh", "slurm_array.sbatch"):
        (tmp_path / "scripts" / name).symlink_to(ROOT / "scripts" / name)
    python = tmp_path / "python"
    python.write_text(
        """#!/usr/bin/env bash
echo "$@" >>"$CALLS"
[[ $1 != -m ]] || shift 5
case $1 in
    scripts/run_folder.py) echo "checkpoints/${2//[\\/=]/-}/$3/$4"; [[ -z ${VAL:-} ]] || echo val ;;
    scripts/analyze.py) mkdir -p "${2#*=}/analysis/120"; touch "${2#*=}/analysis/120/similarity.json" ;;
    train.py)
        [[ "$2" != *pixel_l1 || -n ${MENDED:-} ]] || exit 1
        folder="checkpoints/${2//[\\/=]/-}/$3/$4"
        mkdir -p "$folder"; touch "$folder/last.pt"
        [[ "$*" != *evaluate.every* ]] || touch "$folder/best.pt"
        echo "${REACHED:-120} of 120" >"$folder/progress.txt" ;;
esac
"""
    )
    python.chmod(0o755)
    return tmp_path, {"PYTHON": str(python), "CALLS": str(tmp_path / "calls")}


def calls(root):
    """Entry files called since the last time, by number."""
    lines = [line.split()[0] for line in (root / "calls").read_text().splitlines()]
    (root / "calls").write_text("")
    return {name: lines.count(name) for name in ("train.py", "evaluate.py", "report.py")}


def test_a_run_out_of_time_is_not_finished(miniature):
    root, variables = miniature
    shown = call("cfl_table1.sh", "gta", root=root, MENDED="1", REACHED="60", **variables)
    assert shown.count(": step 60 of 120") == 6 and "failed" not in shown
    assert calls(root) == {"train.py": 6, "evaluate.py": 6, "report.py": 1}
    call("cfl_table1.sh", "gta", root=root, MENDED="1", **variables)  # goes on, and is then finished
    assert calls(root) == {"train.py": 6, "evaluate.py": 6, "report.py": 1}
    shown = call("cfl_table1.sh", "gta", root=root, MENDED="1", **variables)
    assert shown.count(": finished") == 6 and calls(root)["train.py"] == 0


def words_of(root, entry):
    """The words of every call of an entry file since the last time."""
    lines = [line.split() for line in (root / "calls").read_text().splitlines()]
    return [line[1:] for line in lines if line[0] == entry]


def test_the_best_on_val_is_measured_where_there_is_a_val(miniature):
    root, variables = miniature
    call("cfl_table1.sh", "gta", root=root, JOB="1", **variables)
    (train,), (evaluation,) = words_of(root, "train.py"), words_of(root, "evaluate.py")
    assert not any(word.startswith(("evaluate.", "train.")) for word in train)
    assert not any(word.startswith("which=") for word in evaluation)
    (root / "calls").unlink()
    more = {"VAL": "1", "TRAIN": "evaluate.images=9", "EVALUATE": "weights_dir=w"}
    call("cfl_table1.sh", "gta", root=root, JOB="2", **more, **variables)
    (train,), evaluations = words_of(root, "train.py"), words_of(root, "evaluate.py")
    asked = ["evaluate.every=10000", "evaluate.split=val", "evaluate.images=null", "evaluate.metrics=[fid]"]
    assert train[3:] == [*asked, "weights_dir=w", "evaluate.images=9"]  # the user's word wins
    assert ["which=best" in words for words in evaluations] == [False, True]
    assert evaluations[0] == [word for word in evaluations[1] if word != "which=best"]


def test_the_best_on_test_has_to_be_asked_for(miniature):
    root, variables = miniature
    call("cfl_table1.sh", "gta", root=root, JOB="1", BEST="test", EVERY="7", **variables)
    (train,), evaluations = words_of(root, "train.py"), words_of(root, "evaluate.py")
    assert train[3:] == ["train.keep=40", "train.save_every=7"]
    assert [[word for word in words if word.startswith("which=")] for words in evaluations] == [[], ["which=kept"]]
    (root / "calls").unlink()
    call("cfl_table1.sh", "gta", root=root, JOB="1", **variables)  # another question is answered anew
    assert calls(root)["evaluate.py"] == 1


def test_a_run_folder_says_whether_its_data_have_a_val(tmp_path, monkeypatch, capsys):
    def told(*words):
        monkeypatch.setattr(sys, "argv", ["run_folder.py", *words])
        run_folder.main()
        return capsys.readouterr().out.splitlines()[1:]

    assert told("experiment=demo") == ["val"]
    assert told("experiment=demo", "dataset.lengths.val=0") == []
    root = f"dataset.root={tmp_path}"
    assert told("experiment=cfl/table1/pixel_l1", root) == []
    assert told("experiment=cfl/table1/pixel_l1", f"dataset.root={tmp_path}/none") == []
    (tmp_path / "valA").mkdir()
    assert told("experiment=monce/table1/cycle", root) == ["val"]
    (tmp_path / "val").mkdir()
    assert told("experiment=cfl/table1/pixel_l1", root) == ["val"]


def test_a_figure_of_finished_runs_is_still_made_once(miniature):
    root, variables = miniature

    def analysed():
        shown = call("monce_fig2.sh", "horse2zebra", root=root, **variables)
        lines = (root / "calls").read_text().splitlines()
        (root / "calls").unlink()
        return ": finished" in shown, sum(line.startswith("scripts/analyze.py") for line in lines)

    call("monce_fig3.sh", "horse2zebra", root=root, **variables)  # trains the row that the figure reads
    (root / "calls").unlink()
    assert analysed() == (True, 1)
    assert analysed() == (True, 0)


def test_several_ranks_run_in_the_same_python(miniature):
    root, variables = miniature
    call("cfl_table1.sh", "gta", root=root, JOB="1", GPUS="4", **variables)
    lines = (root / "calls").read_text().splitlines()
    ranks = "-m torch.distributed.run --standalone --nproc-per-node 4 train.py experiment=cfl/table1/pixel_patchnce"
    assert any(line.startswith(ranks) for line in lines)


def test_what_is_finished_is_skipped_and_what_fails_is_named(miniature):
    root, variables = miniature
    # the scripts go to the folder above themselves, where their links lie
    shown = call("cfl_table1.sh", "gta", root=root, ok=False, **variables)
    assert "failed: gta cfl/table1/pixel_l1 seed=0" in shown and shown.count("failed") == 1
    assert calls(root) == {"train.py": 6, "evaluate.py": 5, "report.py": 1}
    shown = call("cfl_table1.sh", "gta", root=root, MENDED="1", **variables)
    assert shown.count(": finished") == 5
    assert calls(root) == {"train.py": 1, "evaluate.py": 1, "report.py": 1}
    call("cfl_table1.sh", "gta", root=root, MENDED="1", EVALUATE="metrics=[swd]", **variables)  # other words: again
    assert calls(root) == {"train.py": 6, "evaluate.py": 6, "report.py": 1}


def test_training_that_a_signal_stopped_stops_the_table(miniature):
    root, variables = miniature
    stub = Path(variables["PYTHON"])
    stub.write_text(stub.read_text() + f"if [[ $1 == train.py ]]; then exit {EXIT_CODE}; fi\n")
    ended = subprocess.run(
        ["bash", str(root / "scripts" / "cfl_table1.sh"), "gta"],
        env={**os.environ, **variables, "MENDED": "1"},
        timeout=60,
    )
    assert ended.returncode == EXIT_CODE
    assert calls(root) == {"train.py": 1, "evaluate.py": 0, "report.py": 0}


def test_a_job_of_an_array_is_one_run(miniature):
    root, variables = miniature
    call("cfl_table1.sh", "gta", root=root, JOB="2", SEEDS="5", **variables)
    train = [line for line in (root / "calls").read_text().splitlines() if line.startswith("train.py")]
    assert train == ["train.py experiment=cfl/table1/vgg_l1 dataset=gta seed=5"]
    assert calls(root) == {"train.py": 1, "evaluate.py": 1, "report.py": 0}


def test_smoke_names_its_table_and_its_metrics(miniature):
    root, variables = miniature
    call("cfl_table1.sh", root=root, BUDGET="smoke", MENDED="1", **variables)
    lines = (root / "calls").read_text().splitlines()
    report = next(line for line in lines if line.startswith("report.py"))
    assert "smoke, not the paper's protocol" in report and "out=checkpoints/reports/cfl_table1_smoke" in report
    assert all("fd_lite2" in line for line in lines if line.startswith("evaluate.py"))
    assert yaml.safe_load((CONFIGS / "budget" / "smoke.yaml").read_text())["train"]["steps"] <= 200


def test_the_array_example_runs_its_task_and_queues_it_again(miniature):
    root, variables = miniature
    script = root / "scripts" / "slurm_array.sbatch"
    slurm = {
        "SLURM_SUBMIT_DIR": str(root),
        "SLURM_ARRAY_TASK_ID": "1",
        "SLURM_ARRAY_JOB_ID": "77",
        "TABLE": "cfl_table1",
    }
    environment = {**os.environ, **variables, **slurm}
    subprocess.run(["bash", str(script), "gta"], env=environment, check=True, timeout=60, capture_output=True)
    assert calls(root)["train.py"] == 1

    (root / "scontrol").write_text('#!/usr/bin/env bash\necho scontrol "$@" >>"$CALLS"\n')
    (root / "scontrol").chmod(0o755)
    slow = Path(variables["PYTHON"])
    slow.write_text(slow.read_text() + 'if [[ $1 == train.py ]]; then kill -USR1 "$BATCH"; exec sleep 60; fi\n')
    environment |= {"PATH": f"{root}:{environment['PATH']}", "SLURM_ARRAY_TASK_ID": "2"}
    subprocess.run(
        ["bash", "-c", f'export BATCH=$$; exec bash "{script}" gta'],
        env=environment,
        check=True,
        timeout=30,
        capture_output=True,
    )
    assert "scontrol requeue 77_2" in (root / "calls").read_text()
