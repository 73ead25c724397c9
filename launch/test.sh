#!/usr/bin/env bash
# The gate: style, types, documentation, the wheel, and the tests. It needs bash and Python.
#
#   bash launch/test.sh                      everything
#   bash launch/test.sh -k fuse              pytest alone, with these arguments: the long checks are left out
#   bash launch/test.sh -m slow              the tests that take minutes each
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# The tests start hundreds of programs; without its bytecode, each one compiles a thousand modules again. Many containers set this.
unset PYTHONDONTWRITEBYTECODE
source launch/environment.sh
make_environment requirements-dev.txt requirements-docs.txt
# Some tests compare networks with PyTorch's. It is 200 MB and nothing else needs it, so the gate does without if it must.
if ! python -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)'; then
  pip install --quiet --disable-pip-version-check --retries 0 -r requirements-parity.txt ||
    echo "PyTorch could not be installed: the tests that compare with it are skipped"
fi
if [ $# -gt 0 ]; then exec python -m pytest "$@"; fi

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
smoke=""
stop_smoke() { # also on Ctrl-C: the smoke test has a process group of its own, see below
  [ -z "$smoke" ] || kill -TERM -- "-$smoke" 2>/dev/null || true
}
trap 'stop_smoke; exit 130' INT TERM

# The smoke test waits for pip half of the time, so it runs beside the static checks. It must not run beside the tests: some of
# them measure time.
set -m
bash launch/wheel_smoke.sh >"$logs/smoke.log" 2>&1 &
smoke=$!
set +m

check() { # title, command …
  echo "── $1"
  shift
  "$@" || { stop_smoke; echo "error: failed: $*" >&2; exit 1; }
}
check "style" ruff check .
check "format" ruff format --check .
check "requirements files" python launch/requirements.py --check
check "types" pyright
check "documentation" env NO_MKDOCS_2_WARNING=1 mkdocs build --quiet --strict --site-dir "$logs/site"
echo "── wheel, installed into a new environment"
if ! wait "$smoke"; then
  cat "$logs/smoke.log" >&2
  echo "error: failed: bash launch/wheel_smoke.sh (its output is above)" >&2
  exit 1
fi
tail -n 1 "$logs/smoke.log"
echo "── tests"
python -m pytest
