#!/usr/bin/env bash
# Train on two machines without a scheduler and without ssh: run the same command on both, in any order.
#
#     HEAD=192.0.2.10:29400 PROCESSES=4 scripts/two_nodes.sh --config configs/demo.yaml [--run-dir DIR] [key=value ...]
#
# HEAD is HOST:PORT: an address of one of the two machines that both can reach, and a free port on that machine.
# Both machines need the same code, the same settings file and a shared folder for the run.
# PROCESSES is the number of processes on each machine (default: 1).
# To try it on one machine, use HEAD=127.0.0.1:29400 in two terminals.
set -euo pipefail

: "${HEAD:?set HEAD to HOST:PORT of one of the two machines}"
repository=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
exec torchrun \
    --nnodes="${NODES:-2}" --nproc_per_node="${PROCESSES:-1}" --max-restarts=1 \
    --rdzv-backend=c10d --rdzv-endpoint="$HEAD" --rdzv-id=coupled ${LOCAL_ADDR:+--local-addr="$LOCAL_ADDR"} \
    "$repository/coupled/train.py" "$@"
