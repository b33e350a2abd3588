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
# scripts/kinetics400.sh on 4 x 8 GPUs under SLURM. Set its variables in the environment and give overrides as arguments.
# Submit it from the repository with the environment of the package active:
#
#   TRAIN_CSV=... TRAIN_VIDEOS=... VAL_CSV=... VAL_VIDEOS=... sbatch scripts/slurm_kinetics400.sh --model.context snl
#
# Each machine runs one task: torchrun, which starts one process per GPU. Five minutes before the time limit the training
# saves, and the job is requeued and resumes. The same happens after a machine failure.
# Without torchrun, one task per GPU: srun --ntasks-per-node=8 dnl-video train --config RECIPE --resume auto
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
source scripts/environment.sh

mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
export NODES=${#hosts[@]} HEAD=${hosts[0]} GPUS=${GPUS:-${SLURM_GPUS_ON_NODE:-8}}
# Jobs on the same machines need different ports.
export PORT=${PORT:-$((20000 + SLURM_JOB_ID % 5000 * 2))}
# srun does not inherit --cpus-per-task from sbatch.
[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

queue_again() {
    say "the time limit is near: the training saves, and job $SLURM_JOB_ID is requeued"
    # Signal the tasks, not srun: on SIGTERM srun kills its tasks.
    scancel --signal=TERM "$SLURM_JOB_ID"
    wait
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
}
trap queue_again USR1

# In the background, because bash handles a signal only after a foreground command ends.
step() { printf '\n$ srun'; printf ' %q' "$@"; printf '\n'; srun "$@" & wait $!; }

step --nodes=1 --ntasks=1 env NODES=1 scripts/kinetics400.sh prepare
step --ntasks-per-node=1 scripts/kinetics400.sh train -- "$@"
step --ntasks-per-node=1 scripts/kinetics400.sh evaluate
step --nodes=1 --ntasks=1 env NODES=1 scripts/kinetics400.sh report
