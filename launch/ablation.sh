#!/usr/bin/env bash
# The paper's Table 2a on any data set: trains rows × seeds and writes one table and a plot.
#
#   bash launch/ablation.sh --config=configs/scenes.py [--rows=A,B,C,D,E,F,G,H,I] [--seeds=0,1,2] [--jobs=1]
#                           [--output=runs/ablation-NAME] [--config.KEY=VALUE …]
#
# The config may have words of its own, like configs/camvid.py:cpu. With --jobs=N, N runs share the cores of this machine.
# Interrupted, the same command continues; a run that was finished with the same settings is not repeated. Each run is a folder
# ROW-SEED with its log beside it; the table is ablation.md, the plot ablation.png and .pdf, the figures ablation.json.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n '2,10s/^# \{0,1\}//p' "$0"; }
config="" rows=A,B,C,D,E,F,G,H,I seeds=0,1,2 jobs=1 output="" keys=()
for argument in "$@"; do
  case "$argument" in
    --config=*) config=${argument#*=} ;;
    --rows=*) rows=${argument#*=} ;;
    --seeds=*) seeds=${argument#*=} ;;
    --jobs=*) jobs=${argument#*=} ;;
    --output=*) output=${argument#*=} ;;
    --config.*=*) keys+=("$argument") ;;
    -h | --help) usage; exit 0 ;;
    *) echo "error: $argument is not known:" >&2; usage >&2; exit 1 ;;
  esac
done
if [ -z "$config" ]; then echo "error: --config=configs/NAME.py is missing:" >&2; usage >&2; exit 1; fi
if ! [[ "$jobs" =~ ^[1-9][0-9]*$ ]]; then echo "error: --jobs=$jobs: expected a number from 1" >&2; exit 1; fi
if ! [[ "$rows" =~ ^[A-I](,[A-I])*$ ]]; then echo "error: --rows=$rows: expected letters A … I joined by commas" >&2; exit 1; fi
if ! [[ "$seeds" =~ ^[0-9]+(,[0-9]+)*$ ]]; then echo "error: --seeds=$seeds: expected numbers joined by commas" >&2; exit 1; fi
source launch/environment.sh
python -c 'import jax' 2> /dev/null || make_environment requirements.txt

file=${config%%:*} words=""
[[ "$config" == *:* ]] && words="${config#*:},"
name=$(basename "$file" .py)
output=${output:-runs/ablation-$name}
mkdir -p "$output"

# Each of several runs at once gets its share of the cores: without that they would all use all of them.
pin() { # slot, command …
  local slot=$1 cores
  shift
  if [ "$jobs" = 1 ] || ! command -v taskset > /dev/null; then "$@"; return; fi
  cores=$(nproc)
  local share=$((cores / jobs > 0 ? cores / jobs : 1))
  local first=$((slot * share % cores))
  taskset -c "$first-$((first + share - 1))" "$@"
}

run() { # slot, row, seed
  local slot=$1 row=$2 seed=$3
  local folder="$output/$row-$seed"
  local arguments=(--config="$file:$words$row" --workdir="$folder" --config.seed="$seed" "${keys[@]}")
  if [ "$(cat "$folder/finished" 2> /dev/null)" = "${arguments[*]}" ]; then return; fi
  echo "$(date +%T) row $row, seed $seed"
  if pin "$slot" python -m pyrseg_jax.main "${arguments[@]}" > "$folder.log" 2>&1; then
    echo "${arguments[*]}" > "$folder/finished"
  else
    echo "error: row $row, seed $seed failed: $(tail -n 1 "$folder.log") (all of it: $folder.log)" >&2
    touch "$output/failed"
  fi
}

worker() { # slot: every jobs-th run, seed by seed, so that there is a whole table early
  local slot=$1 number=0 seed row
  for seed in ${seeds//,/ }; do
    for row in ${rows//,/ }; do
      [ $((number++ % jobs)) = "$slot" ] && run "$slot" "$row" "$seed"
    done
  done
  return 0
}

rm -f "$output/failed"
trap 'kill $(jobs -p) 2> /dev/null; exit 130' INT TERM
for ((slot = 0; slot < jobs; slot++)); do worker "$slot" & done
wait
python -m pyrseg_jax.paper.ablation "$output"
if [ -e "$output/failed" ]; then
  echo "error: not all runs were finished; the same command tries those again" >&2
  exit 1
fi
