#!/usr/bin/env bash
# Makes a Python environment with the peers, from PyPI, with pinned versions.
#
#   benches/peers/install.sh [FOLDER]          default: benches/peers/venv
#   benches/peers/install.sh --ipopt [FOLDER]  only what nlp.py needs: casadi, for the IPOPT in it (120 MB)
#   benches/peers/install.sh --llama [FOLDER]  also builds llama-cpp-python from source (C compiler; some ten minutes on 2 cores)
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"

llama=false
ipopt=false
case "${1:-}" in
    --llama) llama=true; shift ;;
    --ipopt) ipopt=true; shift ;;
esac
folder="${1:-$here/venv}"

python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed" >&2; exit 2; }
[[ -d "$folder" ]] || python3 -m venv "$folder"
if "$ipopt"; then
    "$folder/bin/pip" install --requirement "$here/requirements-ipopt.txt"
    exit
fi
"$folder/bin/pip" install --requirement "$here/requirements.txt"
if "$llama"; then
    # GGML_NATIVE lets the compiler use every instruction of this machine, as its makers advise.
    CMAKE_ARGS="-DGGML_NATIVE=ON" "$folder/bin/pip" install --no-binary llama-cpp-python --requirement "$here/requirements-llama.txt"
fi
"$folder/bin/python" - <<'PYTHON'
from importlib.metadata import version
print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "trl", "peft")), sep=", ")
PYTHON
