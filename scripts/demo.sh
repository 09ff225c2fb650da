#!/usr/bin/env bash
# Builds the release and chats with a model: scripts/demo.sh [MODEL.gguf [fulcrum chat options]]
#
# The model is the argument, else FULCRUM_MODEL, else the bundled models/pocket.gguf. With standard input not a terminal,
# every line of it is answered and the program exits.
set -euo pipefail
here=$PWD
cd "$(dirname "$0")/.."
. scripts/setup.sh

model=${FULCRUM_MODEL:-models/pocket.gguf}
case "${1:-}" in
  '' | -*) ;;
  *)
    model=$1
    shift
    ;;
esac
# As the caller sees it, then as the repository does.
[ ! -f "$here/$model" ] || model=$here/$model
[ -f "$model" ] || setup_fail "no model at $model: name a GGUF file, as in scripts/demo.sh MODEL.gguf"

# The whole workspace, as the tests build it: another selection of packages could build the C++ backend a second time.
cargo build --release
exec "${CARGO_TARGET_DIR:-target}/release/fulcrum" chat --model "$model" "$@"
