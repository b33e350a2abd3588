#!/usr/bin/env bash
#SBATCH --job-name=kinetics400
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=96
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
# scripts/kinetics400.sh on 4 x 8 GPUs under SLURM: its variables in the environment, overrides as arguments. From the
# repository, with the package's environment active:
#
#   TRAIN_CSV=... TRAIN_VIDEOS=... VAL_CSV=... VAL_VIDEOS=... sbatch scripts/slurm_kinetics400.sh --model.context snl
#
# One task a machine, which is a torchrun that starts a process for each GPU. Five minutes before the time limit the
# training saves, and the job is queued again; so it is after a machine failed. It then goes on where it stopped.
# Without torchrun: srun --ntasks-per-node=8 dnl-video train --config RECIPE --resume auto, a task for each GPU.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
source scripts/environment.sh

mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
export NODES=${#hosts[@]} HEAD=${hosts[0]} GPUS=${GPUS:-${SLURM_GPUS_ON_NODE:-8}}
# Jobs that share machines get ports of their own.
export PORT=${PORT:-$((20000 + SLURM_JOB_ID % 5000 * 2))}
# srun no longer takes the cores of a task from sbatch.
[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

queue_again() {
    say "the time is nearly up: the training saves, and job $SLURM_JOB_ID is queued again"
    # To the tasks themselves: srun would answer a SIGTERM of its own by killing them.
    scancel --signal=TERM "$SLURM_JOB_ID"
    wait
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
}
trap queue_again USR1

# In the background, so that the signal is not kept waiting.
step() { printf '\n$ srun'; printf ' %q' "$@"; printf '\n'; srun "$@" & wait $!; }

step --nodes=1 --ntasks=1 env NODES=1 scripts/kinetics400.sh prepare
step --ntasks-per-node=1 scripts/kinetics400.sh train -- "$@"
step --ntasks-per-node=1 scripts/kinetics400.sh evaluate
step --nodes=1 --ntasks=1 env NODES=1 scripts/kinetics400.sh report
