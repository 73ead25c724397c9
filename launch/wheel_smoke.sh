#!/usr/bin/env bash
# Builds the wheel, installs it into a new environment outside of the checkout, and uses it from an empty folder as a user would:
# version, validation of a data set, two training steps, prediction, export, and loading the results in Python.
# The active environment must hold requirements-dev.txt. All files go to a temporary folder, which is removed at the end.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
step() { echo "── $(date +%T) $*"; }

step "building the wheel"
if ! python -m build --wheel --no-isolation --outdir "$folder/dist" . >"$folder/build.log" 2>&1; then
  cat "$folder/build.log" >&2
  exit 1
fi
wheel=$(echo "$folder"/dist/*.whl)
step "installing ${wheel##*/}"
python -m venv "$folder/venv"
install_packages "$folder/venv/bin/python" "$wheel"

# Nothing of the checkout or of the user's caches may help.
unset PYTHONPATH
export PATH="$folder/venv/bin:$PATH" JAX_PLATFORMS=cpu XDG_CACHE_HOME="$folder/cache"
# Programs run a few times only, so quick compilation matters more than speed.
export XLA_FLAGS="--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
mkdir "$folder/empty"
cd "$folder/empty"
data=(--config.data.prepared="$folder/data")

step "pyrseg --version"
expected=${wheel##*/pyrseg_jax-}
expected=${expected%%-*}
version=$(pyrseg --version)
[[ "$version" == *"$expected"* ]] || { echo "error: pyrseg --version printed '$version'; expected $expected" >&2; exit 1; }
step "pyrseg validate"
pyrseg validate --config=scenes "${data[@]}"
step "pyrseg train, two steps"
pyrseg train --config=scenes --workdir=run "${data[@]}" --config.training.steps=2 --config.evaluation.batch_size=8
step "pyrseg predict"
python -c 'import numpy, PIL.Image; PIL.Image.fromarray(numpy.full((192, 192, 3), 128, numpy.uint8)).save("gray.png")'
pyrseg predict --workdir=run --input=gray.png --output=out
[ -s out/gray.png ] || { echo "error: pyrseg predict wrote no out/gray.png" >&2; exit 1; }
step "pyrseg export"
pyrseg export --workdir=run --output=model.zip
step "pyrseg_jax.load"
python - "$folder/venv" <<'PYTHON'
import sys

import pyrseg_jax

assert pyrseg_jax.__file__.startswith(sys.argv[1]), f"imported {pyrseg_jax.__file__}, not the installed package"
for path in ("run", "model.zip"):
    assert pyrseg_jax.load(path)("gray.png").labels.shape == (192, 192), path
PYTHON
step "the installed wheel works"
