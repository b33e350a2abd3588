#!/usr/bin/env bash
# The whole pipeline on a small scale: generate videos, train a DNL network, evaluate it, write the report, classify a
# video. Takes about ten minutes on two CPU cores. A second run resumes where the first stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh

prepare_environment
run() { printf '\n$ dnl-video %s\n' "$*"; dnl-video "$@"; }

say "1/5  videos: eight classes of motion, in Kinetics format"
run demo-data --output data/demo

say "2/5  training, evaluation with several views, report"
resume=()
[ -f runs/demo/i3d_dnl/checkpoints/last.ckpt ] && resume=(--resume)
run train --config i3d_dnl --final-test "${resume[@]}"

say "3/5  has it learned motion? The same videos with frames reversed, shuffled, or one frame repeated"
run evaluate --checkpoint runs/demo/i3d_dnl --manifest data/demo/val_reversed.csv --frame-order reversed \
    --num-clips 2 --output runs/demo/i3d_dnl/reversed
run evaluate --checkpoint runs/demo/i3d_dnl --manifest data/demo/val.csv --frame-order shuffled \
    --num-clips 2 --output runs/demo/i3d_dnl/shuffled
run evaluate --checkpoint runs/demo/i3d_dnl --manifest data/demo/val.csv --frame-order repeated \
    --num-clips 2 --output runs/demo/i3d_dnl/repeated

say "4/5  classifying one video, clip by clip"
videos=("data/demo/val/moving left"/*.mp4)
run predict "${videos[0]}" --checkpoint runs/demo/i3d_dnl --per-clip --num-clips 3

say "5/5  done"
echo "report: $(echo runs/demo/i3d_dnl/evaluation/*/report.html)"
