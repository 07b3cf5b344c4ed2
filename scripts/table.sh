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
set -euo pipefail
trap 'exit 130' INT TERM # not on to the next row
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${BUDGET:=full}" "${SEEDS:=0}" "${GPUS:=1}" "${PYTHON:=python}" "${TRAIN:=}" "${EVALUATE:=}" "${LIST:=}" "${JOB:=}"
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
        cityscapes_unpaired | horse2zebra | winter2summer) echo shapes_unpaired ;;
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

# run DATASET EXPERIMENT WORD...: train, evaluate, mark as done with the words that did it.
run() {
    local dataset=$1 experiment=$2 folder whole
    local -a words=("experiment=$experiment" "dataset=$dataset" "${@:3}") start=("$PYTHON") extra=() measure=()
    read -ra extra <<<"$TRAIN"
    read -ra measure <<<"$(measures "$dataset") $EVALUATE"
    words+=("${extra[@]}")
    folder=$("$PYTHON" scripts/run_folder.py "${words[@]}") || return 1
    whole="${words[*]} ${measure[*]}"
    folders+=("$folder")
    if [[ -f $folder/table.done && $(<"$folder/table.done") == "$whole" ]]; then
        echo "$folder: finished"
        return
    fi
    ((GPUS > 1)) && start=(torchrun --standalone --nproc-per-node "$GPUS")
    "${start[@]}" train.py "${words[@]}" || return 1
    if [[ ${measure[*]} == *"$SEGMENTER"* && ! -f $SEGMENTER ]]; then
        "$PYTHON" scripts/train_segmenter.py dataset=shapes steps=100 "out=$SEGMENTER" || return 1
    fi
    "$PYTHON" evaluate.py "checkpoint=$folder" "${measure[@]}" || return 1
    after_row "$folder" || return 1
    echo "$whole" >"$folder/table.done"
}

# run_table [DATASET ...]: everything, then the report. A failing run does not stop the others; the end says which failed.
run_table() {
    local -a runs failed=() words
    local line list out title head=""
    datasets=("$@")
    (($#)) || datasets=("${defaults[@]}")
    mapfile -t runs < <(list_runs)
    folders=()
    if [[ -n $LIST ]]; then
        for line in "${!runs[@]}"; do echo "$line ${runs[$line]}"; done
        return
    fi
    [[ -n $JOB ]] && runs=("${runs[$JOB]}")
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
    if ((${#failed[@]})); then
        printf 'failed: %s\n' "${failed[@]}" >&2
        return 1
    fi
}
