# Sourced by scripts/<paper>_<table>.sh: trains, evaluates and tabulates the rows that the script lists.
#
#   scripts/cfl_table1.sh [dataset ...]      the data sets of the table by default
#
# What is finished is skipped, what was interrupted goes on where it stopped: run the same command again.
# From the environment:
#   BUDGET     full (default), or smoke: generated scenes, small networks, few steps, on a CPU in minutes
#   SEEDS      "0 1 2"; default 0          GPUS       per node, by torchrun; default 1
#   DATA_ROOT  of the prepared data sets   PYTHON     default python
#   TRAIN      more words for train.py     EVALUATE   more words for evaluate.py, the last one winning
#   LIST=1     print the numbered runs     JOB=n      only run number n, no report (for job arrays)
#   BEST       which checkpoints are measured besides the last one: val (default), the best on the validation split where
#              the data set has one; test, also the best on the test images of those kept, as MoNCE and CUT report theirs
#   EVERY      steps between the measurements for BEST and, with BEST=test, between kept checkpoints (40 at most);
#              default 10000, in a smoke run 60
# A wrong value ends the script with one line and exit code 2, a failed run with 1, training that a signal stopped with 85 (130: itself).
set -euo pipefail
trap 'exit 130' INT TERM # not on to the next row
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${BUDGET:=full}" "${SEEDS:=0}" "${GPUS:=1}" "${PYTHON:=python}" "${TRAIN:=}" "${EVALUATE:=}" "${LIST:=}" "${JOB:=}" "${BEST:=val}" "${EVERY:=}"
case $BUDGET in
    full | smoke) ;;
    *) echo "BUDGET=$BUDGET: full or smoke was wanted" >&2 && exit 2 ;;
esac
case $BEST in
    val | test) ;;
    *) echo "BEST=$BEST: val or test was wanted" >&2 && exit 2 ;;
esac
[[ -n $EVERY ]] || { [[ $BUDGET == smoke ]] && EVERY=60 || EVERY=10000; }
if ! [[ $EVERY =~ ^[1-9][0-9]{0,8}$ ]]; then
    echo "EVERY=$EVERY: a number of steps, 1 or more, was wanted" >&2 && exit 2
fi
SEGMENTER=checkpoints/segmenters/shapes_smoke.pt
rows=()

# table NAME DATASET...: what the script makes, and the data sets it stands for.
table() {
    name=$1
    defaults=("${@:2}")
}

# row EXPERIMENT [WORD ...]: words for train.py; `smoke:WORD` only with BUDGET=smoke, `on:DATASET` only on that data set.
row() { rows+=("$*"); }

# after_row FOLDER: what else a script does with each finished run; scripts may define their own.
after_row() { :; }

# The generated data set that stands for a paper's in a smoke run.
stand_in() {
    case $1 in
        *_unpaired | camvid_dusk | horse2zebra | winter2summer) echo shapes_unpaired ;;
        *) echo shapes ;;
    esac
}

# What the paper of this script measures on a data set, as words for evaluate.py.
measures() {
    case $BUDGET:$name:$1 in
        smoke:*:shapes) echo "metrics=[fd_lite2,segmentation] segmenter=$SEGMENTER" ;;
        smoke:*) echo "metrics=[fd_lite2,swd]" ;;
        full:cfl*:cityscapes) echo "metrics=[fid,segmentation] segmentation=cityscapes/cfl" ;;
        full:cfl*:gta) echo "metrics=[fid,segmentation] segmentation=gta/cfl" ;;
        full:*:cityscapes_unpaired) echo "metrics=[fid,segmentation] segmentation=cityscapes/cut" ;;
        full:*:ade20k) echo "metrics=[fid,segmentation] segmentation=ade20k" ;;
        full:*:nyu_depth) echo "metrics=[fid,depth]" ;;
        full:*) echo "metrics=[fid,swd]" ;;
    esac
}

# One line a run: DATASET EXPERIMENT seed=S WORDS.
list_runs() {
    local line dataset word seed stands whole
    local -a words
    local -A seen=()
    for line in "${rows[@]}"; do
        for dataset in "${datasets[@]}"; do
            words=()
            for word in ${line#* }; do
                case $word in
                    smoke:*) [[ $BUDGET == smoke ]] && words+=("${word#smoke:}") ;;
                    on:*) [[ $word == "on:$dataset" ]] || continue 2 ;;
                    *) [[ $word == "${line%% *}" ]] || words+=("$word") ;;
                esac
            done
            stands=$dataset
            if [[ $BUDGET == smoke ]]; then
                stands=$(stand_in "$dataset")
                words+=(budget=smoke)
            fi
            for seed in $SEEDS; do
                whole="$stands ${line%% *} seed=$seed ${words[*]}"
                [[ -n ${seen[$whole]:-} ]] || echo "${whole% }"
                seen[$whole]=1
            done
        done
    done
}

# Words for train.py that keep the checkpoints of BEST: keeps SPLIT [WORD ...], where SPLIT is val for a data set that has
# one and the words are those for evaluate.py, whose first distance between images chooses.
keeps() {
    local word name metric="" places="" words=""
    for word in "${@:2}"; do
        case $word in
            metrics=*)
                metric=""
                for name in ${word//[^a-z0-9_]/ }; do
                    case $name in
                        metrics | segmentation | depth | depth_median | appearance) ;;
                        *) metric=${metric:-$name} ;;
                    esac
                done
                ;;
            weights_dir=* | offline=*) places+=" $word" ;;
        esac
    done
    if [[ $1 == val && -n $metric ]]; then
        words="evaluate.every=$EVERY evaluate.split=val evaluate.images=null evaluate.metrics=[$metric]$places"
    fi
    if [[ $BEST == test ]]; then words+=" train.keep=40 train.save_every=$EVERY"; fi
    echo "$words"
}

# run DATASET EXPERIMENT WORD...: train, evaluate, mark as done with the words that did it if training reached its end.
run() {
    local dataset=$1 experiment=$2 folder whole step steps split
    local -a words=("experiment=$experiment" "dataset=$dataset" "${@:3}") start=("$PYTHON") extra=() measure=() kept=()
    read -ra extra <<<"$TRAIN"
    read -ra measure <<<"$(measures "$dataset") $EVALUATE"
    folder=$("$PYTHON" scripts/run_folder.py "${words[@]}" "${extra[@]}") || return 1
    { read -r folder && read -r split || true; } <<<"$folder"
    read -ra kept <<<"$(keeps "$split" "${measure[@]}")"
    words+=("${kept[@]}" "${extra[@]}") # TRAIN's words last: they win
    whole="${words[*]} ${measure[*]}"
    folders+=("$folder")
    if [[ -f $folder/table.done && $(<"$folder/table.done") == "$whole" ]]; then
        echo "$folder: finished"
        after_row "$folder"
        return
    fi
    ((GPUS > 1)) && start+=(-m torch.distributed.run --standalone --nproc-per-node "$GPUS")
    if "${start[@]}" train.py "${words[@]}"; then :; else
        [[ $? != 85 ]] || exit 85 # a signal: saved, and not on to the next row
        return 1
    fi
    if [[ ${measure[*]} == *"$SEGMENTER"* && ! -f $SEGMENTER ]]; then
        "$PYTHON" scripts/train_segmenter.py dataset=shapes steps=100 "out=$SEGMENTER" || return 1
    fi
    "$PYTHON" evaluate.py "checkpoint=$folder" "${measure[@]}" || return 1
    if [[ -f $folder/best.pt ]]; then
        "$PYTHON" evaluate.py "checkpoint=$folder" which=best "${measure[@]}" || return 1
    fi
    if [[ $BEST == test ]]; then
        "$PYTHON" evaluate.py "checkpoint=$folder" which=kept "${measure[@]}" || return 1
    fi
    read -r step _ steps <"$folder/progress.txt" || return 1
    if ! [[ "$step $steps" =~ ^[0-9]{1,12}\ [0-9]{1,12}$ ]]; then # arithmetic would run what a foreign file says
        echo "$folder/progress.txt: STEP of STEPS was wanted" >&2
        return 1
    fi
    if ((10#$step < 10#$steps)); then # stopped by train.minutes
        unfinished+=("$folder: step $step of $steps")
        return
    fi
    after_row "$folder" || return 1
    echo "$whole" >"$folder/table.done"
}

# run_table [DATASET ...]: everything, then the report. A failing run does not stop the others; the end says which failed,
# and which runs the same command will carry on.
run_table() {
    local -a runs failed=() unfinished=() words
    local line list out title head=""
    datasets=("$@")
    (($#)) || datasets=("${defaults[@]}")
    mapfile -t runs < <(list_runs)
    folders=()
    if ((${#runs[@]} == 0)); then
        echo "$name has no run on ${datasets[*]}; its data sets are ${defaults[*]}" >&2
        return 2
    fi
    if [[ -n $LIST ]]; then
        for line in "${!runs[@]}"; do echo "$line ${runs[$line]}"; done
        return
    fi
    if [[ -n $JOB ]]; then
        if ! [[ $JOB =~ ^(0|[1-9][0-9]{0,8})$ ]] || ((JOB >= ${#runs[@]})); then
            echo "JOB=$JOB: a number from 0 to $((${#runs[@]} - 1)) was wanted; LIST=1 prints them" >&2
            return 2
        fi
        runs=("${runs[$JOB]}")
    fi
    for line in "${runs[@]}"; do
        echo "== $line"
        read -ra words <<<"$line"
        run "${words[@]}" || failed+=("$line")
    done
    if [[ -z $JOB ]]; then
        out=checkpoints/reports/$name title="$name, full budget"
        if [[ $BUDGET == smoke ]]; then
            out+=_smoke title="$name, smoke" head="note=\"smoke, not the paper's protocol\""
        fi
        list=$(printf '%s\n' "${folders[@]}" | while read -r line; do [[ ! -f $line/last.pt ]] || echo "$line"; done | paste -sd,)
        "$PYTHON" report.py "runs=[$list]" "out=$out" "title=\"$title\"" ${head:+"$head"} || failed+=("report.py")
    fi
    ((${#unfinished[@]} == 0)) || printf 'unfinished, the same command goes on: %s\n' "${unfinished[@]}"
    if ((${#failed[@]})); then
        printf 'failed: %s\n' "${failed[@]}" >&2
        return 1
    fi
}
