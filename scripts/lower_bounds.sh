#!/usr/bin/env bash
# Runs the tests in an environment that holds each dependency at the lower bound that setup.cfg declares.
#
#     bash scripts/lower_bounds.sh [ARGUMENTS OF PYTEST]
#
# PYTHON names the interpreter (default: python3.10, the oldest one supported). The environment lies in a temporary
# folder (some 8 GB) and is removed at the end; KEEP=FOLDER keeps it there and uses it again.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3.10}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
environment=${KEEP:-$work/environment}
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore HF_HUB_OFFLINE=1

"$python" -m scripts.lower_bounds setup.cfg > "$work/bounds.txt"
cat "$work/bounds.txt"
test -x "$environment/bin/python" || "$python" -m venv "$environment"
"$environment/bin/pip" install --quiet -r "$work/bounds.txt"
"$environment/bin/pip" install --quiet --no-deps -e .
"$environment/bin/python" -m pytest "$@"
