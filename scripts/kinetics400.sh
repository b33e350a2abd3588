#!/usr/bin/env bash
# From the lists and videos of Kinetics to report.html. Activate the environment of the package first. The script prints
# each command before it runs it. A second run resumes every step. Relative paths refer to this repository.
#
#   TRAIN_CSV=kinetics_train.csv TRAIN_VIDEOS=/data/kinetics400/train \
#   VAL_CSV=kinetics_val.csv VAL_VIDEOS=/data/kinetics400/val scripts/kinetics400.sh
#
#   scripts/kinetics400.sh [STEP ...] [-- OVERRIDE ...]
#
# STEPs: prepare, check, train, evaluate, report. Default: all, in this order. OVERRIDEs are passed to train:
#   scripts/kinetics400.sh -- --model.context snl --optim.lr 0.05
#
# Other variables and their defaults:
#   RECIPE=slow_r50_8x8_dnl                     a name (dnl-video recipes lists them) or a path
#   RUN=runs/kinetics400/<name of the recipe>   folder of the run
#   LISTS=data/kinetics400                      folder of the prepared lists
#   CLASSES=kinetics400                         or kinetics600 with -- --model.num_classes 600
#   EVALUATE=                                   options of `dnl-video evaluate`: "--num-clips 10 --num-crops 3"
#   PREDICTIONS=$RUN/evaluation/best            folder of predictions and report; use another one for other options
#   GPUS=1                                      GPUs per machine; torchrun starts one process per GPU
#   NODES=1 HEAD= PORT=29500                    machines, name of the first one, the first of two free ports on it
#
# On several machines with shared folders: run prepare on one machine, then train on all machines at the same time, then
# evaluate on all, then report on one:
#   NODES=4 GPUS=8 HEAD=node01 ... scripts/kinetics400.sh train
#
# Lightning's launcher instead of torchrun, on one machine:
#   scripts/kinetics400.sh train -- --trainer.devices 8
#
# On Ctrl-C the training saves and stops. It does the same on SIGTERM if the script runs a single step. torchrun does not
# forward SIGUSR1.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh

: "${TRAIN_CSV:?is the list of training videos}" "${TRAIN_VIDEOS:?is the folder of the training videos}"
: "${VAL_CSV:?is the list of validation videos}" "${VAL_VIDEOS:?is the folder of the validation videos}"
RECIPE=${RECIPE:-slow_r50_8x8_dnl}
RUN=${RUN:-runs/kinetics400/$(basename "$RECIPE" .yaml)}
PREDICTIONS=${PREDICTIONS:-$RUN/evaluation/best}
LISTS=${LISTS:-data/kinetics400}
CLASSES=${CLASSES:-kinetics400}
GPUS=${GPUS:-1} NODES=${NODES:-1} PORT=${PORT:-29500}
# Time for a stopped run to save its checkpoint; torchrun's default is 30 seconds.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-120}

steps=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do steps+=("$1") && shift; done
[ $# -eq 0 ] || shift
[ ${#steps[@]} -gt 0 ] || steps=(prepare check train evaluate report)
read -ra views <<<"${EVALUATE:-}"
training=(
    --config "$RECIPE" --output "$RUN" --data.class_list "$CLASSES"
    --data.train_manifest "$LISTS/train.csv" --data.train_root "$TRAIN_VIDEOS"
    --data.val_manifest "$LISTS/val.csv" --data.val_root "$VAL_VIDEOS" "$@"
)

run() { printf '\n$'; printf ' %q' "$@"; printf '\n'; "$@"; }

# launch PORT COMMAND ...: one process, or one per GPU of each machine.
launch() {
    local port=$1 launcher=(dnl-video)
    shift
    if [ "$NODES" -gt 1 ]; then
        launcher=(torchrun --nnodes "$NODES" --nproc_per_node "$GPUS" --rdzv_id "$(basename "$RUN")-$1"
            --rdzv_backend c10d --rdzv_endpoint "${HEAD:?is the name of the first machine}:$port" -m dnl_video)
    elif [ "$GPUS" -gt 1 ]; then
        launcher=(torchrun --standalone --nproc_per_node "$GPUS" -m dnl_video)
    fi
    # A single step replaces this script, so that it receives the signals sent to the script.
    if [ ${#steps[@]} -eq 1 ]; then set -- exec "${launcher[@]}" "$@"; else set -- "${launcher[@]}" "$@"; fi
    run "$@"
}

for step in "${steps[@]}"; do
    case $step in
    check | train | evaluate) ;;
    prepare | report) [ "$NODES" -eq 1 ] || fail "$step runs on one machine; start it there without NODES" ;;
    *) fail "no step $step; allowed: prepare, check, train, evaluate, report" ;;
    esac
done

for step in "${steps[@]}"; do
    say "$step"
    case $step in
    prepare)
        run dnl-video prepare --annotations "$TRAIN_CSV" --videos "$TRAIN_VIDEOS" --classes "$CLASSES" \
            --output "$LISTS/train.csv"
        # Missing and broken videos stay in the validation list, so that the report counts them.
        run dnl-video prepare --annotations "$VAL_CSV" --videos "$VAL_VIDEOS" --classes "$CLASSES" \
            --output "$LISTS/val.csv" --keep-failed
        ;;
    check) launch "$PORT" train "${training[@]}" --dry-run ;;
    train) launch "$PORT" train "${training[@]}" --resume auto ;;
    # Another port, because the port of the training may still be in use.
    evaluate) launch $((PORT + 1)) evaluate --checkpoint "$RUN" --manifest "$LISTS/val.csv" --root "$VAL_VIDEOS" \
        --output "$PREDICTIONS" --allow-failed ${views[@]+"${views[@]}"} ;;
    report)
        run dnl-video report "$PREDICTIONS"
        echo "report: $PREDICTIONS/report.html"
        ;;
    esac
done
