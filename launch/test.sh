#!/usr/bin/env bash
# All tests, from nothing but bash and Python. Arguments are handed to pytest: bash launch/test.sh -k fuse
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh
make_environment requirements-dev.txt
# Networks are compared with PyTorch's where there is one to be had: 200 MB, and no requirement of anything else.
if ! python -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)'; then
  pip install --quiet --disable-pip-version-check --retries 0 -r requirements-parity.txt ||
    echo "PyTorch could not be installed: the tests that compare with it are skipped"
fi
ruff check .
exec python -m pytest "$@"
