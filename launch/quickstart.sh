#!/usr/bin/env bash
# From a checkout, bash, and Python to a trained pyramid: renders a data set, trains on it, evaluates, and draws the results.
# Arguments go to the training run, for example: bash launch/quickstart.sh --config.training.steps=100 --workdir=runs/short
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh
make_environment requirements.txt
exec python -m pyrseg_jax.main --config=configs/scenes.py "$@"
