#!/usr/bin/env bash
# All tests, from nothing but bash and Python. Arguments are handed to pytest: bash launch/test.sh -k fuse
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh
make_environment requirements-dev.txt
ruff check .
exec python -m pytest "$@"
