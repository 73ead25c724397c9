#!/usr/bin/env bash
# Run everything that needs an accelerator: a training run, then the benchmarks at full size, each with its own time limit.
#   bash benchmarks/accelerator.sh FOLDER [STEP …]     STEPs: run idle steps inference operations compilation memory scaling parity
# FOLDER receives the output and the JSON of each step. A step that fails or takes too long does not stop the others, but the
# script then exits with status 1.
set -uo pipefail
if [[ $# -lt 1 || $1 == -h || $1 == --help ]]; then
  sed -n '2,5s/^# \{0,1\}//p' "$0"
  exit 0
fi
folder=$(mkdir -p "$1" && cd "$1" && pwd)
shift
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
export XLA_PYTHON_CLIENT_PREALLOCATE=false
failed=()

# step NAME SECONDS COMMAND…: run the command with a time limit, unless only other steps were asked for.
wanted=" $* "
step() {
  local name=$1 limit=$2
  shift 2
  [[ $wanted == "  " || $wanted == *" $name "* ]] || return 0
  echo "== $name: $*"
  if ! timeout "$limit" "$@" > "$folder/$name.txt" 2> "$folder/$name.log"; then
    failed+=("$name")
    tail -n 5 "$folder/$name.log"
  fi
  cat "$folder/$name.txt"
}

step run 420 python -m pyrseg_jax.main --config=configs/scenes.py "--workdir=$folder/scenes" --config.training.profile=100:110
step idle 60 python benchmarks/idle.py "$folder/scenes" "--json=$folder/idle.json"
step steps 560 python benchmarks/train_step.py --full "--json=$folder/steps.json"
step inference 560 python benchmarks/inference.py --full "--json=$folder/inference.json"
step operations 300 python benchmarks/pyramid_ops.py --full "--json=$folder/operations.json"
step compilation 560 python benchmarks/compilation.py --images_per_device=16 "--json=$folder/compilation.json"
step memory 560 python benchmarks/memory.py --backbone=hrnet_w48 --dtype=bfloat16 --crop_px=512 --batch_size=16 "--json=$folder/memory.json"
step scaling 300 python benchmarks/scaling.py --devices="$(python -c 'import jax; print(",".join(str(n) for n in (1, 2, 4, 8) if n <= len(jax.devices())))')" \
  --backbone=hrnet_w48 --crop_px=512 --batch_size=8 "--json=$folder/scaling.json"
step parity 560 python benchmarks/parity.py --backbones=hrnet_w18 "--json=$folder/parity.json"

if ((${#failed[@]})); then
  echo "these steps failed or took too long: ${failed[*]} (see $folder)"
  exit 1
fi
