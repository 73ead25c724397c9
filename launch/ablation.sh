#!/usr/bin/env bash
# Trains rows of the paper's Table 2a, or methods of Table 1, with every seed on any data set; writes one table and one plot.
#
#   bash launch/ablation.sh --config=configs/scenes.py [--rows=A,B,C,D,E,F,G,H,I] [--methods=METHOD,METHOD+pyramid,…]
#                           [--seeds=0,1,2] [--jobs=1] [--output=runs/ablation-NAME] [--config.KEY=VALUE …]
#
# The config may carry variant words, for example configs/camvid.py:cpu. "+" joins the words of one method, for example
# --methods=danet,danet+pyramid or, for the large configs, resnet101+danet; `pyrseg configs` lists the words. With --methods and
# without --rows, no rows are trained. With --jobs=N, N runs share the cores of this machine. After an interruption, the same command
# continues; it does not repeat runs that finished with the same settings. Each run has a folder ROW-SEED or METHOD-SEED with its
# log beside it. The table is ablation.md, the plot ablation.png and .pdf, the numbers ablation.json.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' launch/ablation.sh; }
config="" rows="" methods="" seeds=0,1,2 jobs=1 output="" keys=()
for argument in "$@"; do
  case "$argument" in
    --config=*) config=${argument#*=} ;;
    --rows=*) rows=${argument#*=} ;;
    --methods=*) methods=${argument#*=} ;;
    --seeds=*) seeds=${argument#*=} ;;
    --jobs=*) jobs=${argument#*=} ;;
    --output=*) output=${argument#*=} ;;
    --config.*=*) keys+=("$argument") ;;
    -h | --help) usage; exit 0 ;;
    *) echo "error: unknown argument $argument:" >&2; usage >&2; exit 1 ;;
  esac
done
if [ -z "$config" ]; then echo "error: --config=configs/NAME.py is missing:" >&2; usage >&2; exit 1; fi
if ! [[ "$jobs" =~ ^[1-9][0-9]*$ ]]; then echo "error: --jobs=$jobs: expected a whole number of at least 1" >&2; exit 1; fi
if [ -z "$rows$methods" ]; then rows=A,B,C,D,E,F,G,H,I; fi
if [ -n "$rows" ] && ! [[ "$rows" =~ ^[A-I](,[A-I])*$ ]]; then
  echo "error: --rows=$rows: expected comma-separated letters A to I" >&2
  exit 1
fi
if [ -n "$methods" ] && ! [[ "$methods" =~ ^[a-z0-9_]+([,+][a-z0-9_]+)*$ ]]; then
  echo "error: --methods=$methods: expected comma-separated methods, whose words \"+\" joins, for example danet,danet+pyramid" >&2
  exit 1
fi
labels="${rows//,/ } ${methods//,/ }"
if ! [[ "$seeds" =~ ^[0-9]+(,[0-9]+)*$ ]]; then echo "error: --seeds=$seeds: expected comma-separated numbers" >&2; exit 1; fi
source launch/environment.sh
python -c 'import jax' 2> /dev/null || make_environment requirements.txt

file=${config%%:*} words=""
[[ "$config" == *:* ]] && words="${config#*:},"
name=$(basename "$file" .py)
output=${output:-runs/ablation-$name}
mkdir -p "$output"

# Gives each of several concurrent runs its own share of the cores. Without that, every run would use all of them.
pin() { # slot, command …
  local slot=$1 cores
  shift
  if [ "$jobs" = 1 ] || ! command -v taskset > /dev/null; then "$@"; return; fi
  cores=$(nproc)
  local share=$((cores / jobs > 0 ? cores / jobs : 1))
  local first=$((slot * share % cores))
  taskset -c "$first-$((first + share - 1))" "$@"
}

name_of() { # row or method
  if [[ "$1" =~ ^[A-I]$ ]]; then echo "row $1"; else echo "$1"; fi
}

run() { # slot, row or method, seed
  local slot=$1 label=$2 seed=$3
  local folder="$output/$label-$seed"
  local arguments=(--config="$file:$words${label//+/,}" --workdir="$folder" --config.seed="$seed" "${keys[@]}")
  if [ "$(cat "$folder/finished" 2> /dev/null)" = "${arguments[*]}" ]; then return; fi
  echo "$(date +%T) $(name_of "$label"), seed $seed"
  if pin "$slot" python -m pyrseg_jax.main "${arguments[@]}" > "$folder.log" 2>&1; then
    echo "${arguments[*]}" > "$folder/finished"
  else
    echo "error: $(name_of "$label"), seed $seed failed: $(tail -n 1 "$folder.log") (all of it: $folder.log)" >&2
    touch "$output/failed"
  fi
}

# Takes every jobs-th run. Seeds are the outer loop, so that the first whole table is complete early.
worker() { # slot
  local slot=$1 number=0 seed label
  for seed in ${seeds//,/ }; do
    for label in $labels; do
      [ $((number++ % jobs)) = "$slot" ] && run "$slot" "$label" "$seed"
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
  echo "error: some runs did not finish; the same command tries them again" >&2
  exit 1
fi
