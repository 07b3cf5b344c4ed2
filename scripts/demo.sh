#!/usr/bin/env bash
# Train, translate and evaluate the embedded default: generated scenes, nothing to download.
set -euo pipefail
cd "$(dirname "$0")/.."
run=checkpoints/demo/shapes/base/seed0
python train.py
python test.py checkpoint=$run
python evaluate.py checkpoint=$run untrained=true
echo
echo "pictures: $run/eval/untrained.png, $run/eval/$(ls $run/test | sort -n | tail -1).png, $run/samples/"
echo "numbers:  $run/eval/*.json, $run/log.jsonl; curves: tensorboard --logdir checkpoints"
