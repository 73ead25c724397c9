#!/usr/bin/env bash
# Runs one training run as N processes on this machine, which find each other through a free port of localhost.
#
#   bash launch/local.sh [--dry-run] [--logs=DIR] [--grace=SECONDS] N --config=configs/NAME.py [ARGUMENTS of pyrseg_jax.main …]
#
# The processes divide the NVIDIA GPUs among them (those in CUDA_VISIBLE_DEVICES, if it is set). Without GPUs, or with
# JAX_PLATFORMS=cpu, they divide the CPU cores. Each process writes to DIR/process-I.log, by default in WORKDIR-logs or
# runs/local-logs; the output of process 0 is also shown.
# When a process fails, the others get SIGTERM, and SIGKILL if they still run after --grace seconds (default 10). SIGTERM and the
# first Ctrl-C reach all processes as SIGTERM, so that they save; a second Ctrl-C kills them. The exit status is that of the first
# process that failed. If none failed, it is 75 if a process saved and stopped (the same command continues), and 0 otherwise.
# --dry-run prints the commands and starts nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' launch/local.sh; }
fail() { echo "error: $1" >&2; exit 1; }

is_dry=no logs="" grace_s=10 num_processes="" arguments=()
while [ $# -gt 0 ]; do
  case "$1" in
    --dry-run) is_dry=yes ;;
    --logs=*) logs=${1#*=} ;;
    --grace=*) grace_s=${1#*=} ;;
    -h | --help) usage; exit 0 ;;
    -*) fail "unknown option $1 before the number of processes (--help shows the order)" ;;
    *) num_processes=$1; shift; arguments=("$@"); break ;;
  esac
  shift
done
[[ "$num_processes" =~ ^[1-9][0-9]*$ ]] ||
  fail "'$num_processes': expected the number of processes, at least 1, as in: bash launch/local.sh 2 --config=configs/scenes.py"
[[ "$grace_s" =~ ^[0-9]+$ ]] || fail "--grace=$grace_s: expected a whole number of seconds"
for argument in ${arguments[@]+"${arguments[@]}"}; do
  case "$argument" in
    --workdir=*) logs=${logs:-${argument#*=}-logs} ;;
    --coordinator* | --num_processes* | --process_id*) fail "$argument: this script sets it" ;;
  esac
done
logs=${logs:-runs/local-logs}

# Prints the cores that this script may use, one per line. These need not be all cores of the machine.
allowed_cores() {
  local range
  for range in $(taskset -cp $$ | sed 's/.*: //; s/,/ /g'); do seq "${range%-*}" "${range#*-}"; done
}

# Prints the GPUs to use, one per line.
available_gpus() {
  if [ "${JAX_PLATFORMS:-}" = cpu ]; then return; fi
  if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
    echo "$CUDA_VISIBLE_DEVICES" | tr ',' '\n'
  elif command -v nvidia-smi > /dev/null; then
    nvidia-smi --query-gpu=index --format=csv,noheader 2> /dev/null || true
  fi
}

# Prints this process's part of the items, separated by commas. If there are more processes than items, several get the same one.
share_of() { # process, item …
  local number=$1 each
  shift
  each=$(($# / num_processes > 0 ? $# / num_processes : 1))
  local first=$((number * each % $#))
  local part=("${@:first+1:each}")
  (IFS=,; echo "${part[*]}")
}

gpus=() cores=()
while read -r gpu; do [ -z "$gpu" ] || gpus+=("$gpu"); done < <(available_gpus)
if [ ${#gpus[@]} -gt 0 ]; then
  [ $((${#gpus[@]} % num_processes)) = 0 ] ||
    fail "${#gpus[@]} GPUs cannot be divided evenly among $num_processes processes: choose some in CUDA_VISIBLE_DEVICES"
elif command -v taskset > /dev/null; then
  while read -r core; do cores+=("$core"); done < <(allowed_cores)
fi

source launch/environment.sh
has_jax() { python -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("jax") is None)' 2> /dev/null; }
if [ "$is_dry" = no ] && ! has_jax; then
  if [ ${#gpus[@]} -gt 0 ]; then make_environment requirements-cuda.txt; else make_environment requirements.txt; fi
fi
if [ "$is_dry" = yes ]; then
  port=PORT
else
  port=$(python -c 'import socket; s = socket.socket(); s.bind(("localhost", 0)); print(s.getsockname()[1])')
fi

# Sets `command` to the command line of a process.
command_of() { # process
  command=(env)
  if [ ${#gpus[@]} -gt 0 ]; then
    # JAX_LOCAL_DEVICE_IDS matters in a shell inside of a Slurm job, where jax would use a single GPU.
    command+=("CUDA_VISIBLE_DEVICES=$(share_of "$1" "${gpus[@]}")")
    command+=("JAX_LOCAL_DEVICE_IDS=$(seq -s , 0 $((${#gpus[@]} / num_processes - 1)))")
  fi
  if [ ${#cores[@]} -gt 0 ]; then command=(taskset -c "$(share_of "$1" "${cores[@]}")"); fi
  command+=(python -m pyrseg_jax.main ${arguments[@]+"${arguments[@]}"})
  command+=("--coordinator=localhost:$port" "--num_processes=$num_processes" "--process_id=$1")
}

if [ "$is_dry" = yes ]; then
  for ((i = 0; i < num_processes; i++)); do
    command_of "$i"
    echo "$(printf '%q ' "${command[@]}")>> $(printf %q "$logs/process-$i.log") 2>&1"
  done
  exit 0
fi

# Where the system can do it, a process gets SIGTERM when this script dies without a word, so that it saves and ends.
guard=()
if command -v setpriv > /dev/null && setpriv --pdeathsig TERM true 2> /dev/null; then guard=(setpriv --pdeathsig TERM); fi
pids=() is_stopping=no
# Sends a signal to every process that was started. A process may end at any moment, so failures are ignored.
signal_all() { # signal
  local pid
  for pid in ${pids[@]+"${pids[@]}"}; do [ "$pid" = ended ] || kill "-$1" "$pid" 2> /dev/null || true; done
}
is_terminated=no
trap 'is_terminated=yes; signal_all TERM' TERM
# Background processes of a script ignore SIGINT, so Ctrl-C reaches this script alone. The first one saves, the second kills.
trap 'if [ "$is_terminated" = no ]; then is_terminated=yes; signal_all TERM; else signal_all KILL; fi' INT
trap 'signal_all KILL' EXIT

mkdir -p "$logs"
touch "$logs/process-0.log"
exec 4< "$logs/process-0.log"
show() { cat <&4 || true; } # prints what process 0 wrote since the last call
show > /dev/null
for ((i = 0; i < num_processes; i++)); do
  command_of "$i"
  ${guard[@]+"${guard[@]}"} "${command[@]}" >> "$logs/process-$i.log" 2>&1 4<&- &
  pids+=($!)
done
[ "$is_terminated" = no ] || signal_all TERM # for the processes that were started after the signal

status=0 failed_at=0 num_left=$num_processes
finish() { # process, its exit status
  pids[$1]=ended
  num_left=$((num_left - 1))
  case "$2" in
    0) ;;
    75) [ "$status" != 0 ] || status=75 ;;
    *)
      [ "$is_stopping" = no ] || return 0
      status=$2 is_stopping=yes failed_at=$SECONDS
      show
      echo "error: process $1 ended with status $2: $(tail -n 1 "$logs/process-$1.log") (all of it: $logs/process-$1.log)" >&2
      signal_all TERM
      ;;
  esac
}
while [ "$num_left" -gt 0 ]; do
  for ((i = 0; i < num_processes; i++)); do
    if [ "${pids[i]}" != ended ] && ! kill -0 "${pids[i]}" 2> /dev/null; then
      ended_with=0
      wait "${pids[i]}" || ended_with=$?
      finish "$i" "$ended_with"
    fi
  done
  if [ "$is_stopping" = yes ] && [ $((SECONDS - failed_at)) -ge "$grace_s" ]; then signal_all KILL; fi
  show
  sleep 0.2 || true
done
show
exit "$status"
