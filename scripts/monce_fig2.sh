#!/usr/bin/env bash
# MoNCE, Fig. 2: similarities of positives and negatives, unpaired and paired, of the PatchNCE rows of Tables 1 and 3.
source "$(dirname "$0")/table.sh"
table monce_fig2 horse2zebra ade20k
row monce/table1/patchnce on:horse2zebra
row monce/table3/patchnce on:ade20k smoke:encoder=effnet_lite0
after_row() { compgen -G "$1/analysis/*/similarity.json" >/dev/null || "$PYTHON" scripts/analyze.py "checkpoint=$1"; }
run_table "$@"
