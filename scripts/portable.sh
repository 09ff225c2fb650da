#!/usr/bin/env bash
# Builds the library that goes into packages for this computer's kind: scripts/portable.sh prints its path. The command line is
# built beside it, of the same code: what the packages' tests compare answers with.
#
# Never for the CPU of the machine that builds: an instruction that a user's CPU lacks ends the app. Our own kernels choose
# their instructions at run time (ADR 0012); everything else is built for any CPU of the last fifteen years. The target is named,
# although it is this machine's, so that the build has a folder of its own beside the tests' build for the native CPU.
set -euo pipefail
cd "$(dirname "$0")/.."

. scripts/any-cpu.sh

target=$(rustc -vV | sed -n 's/^host: //p')
case "$target" in
  x86_64-*) RUSTFLAGS='-C target-cpu=x86-64-v2' ;;
esac
cargo build --profile dist --target "$target" --package fulcrum-ffi --package fulcrum-cli >&2
case "$target" in
  *-apple-*) name=libfulcrum_ffi.dylib ;;
  *) name=libfulcrum_ffi.so ;;
esac
echo "$(cd "${CARGO_TARGET_DIR:-target}" && pwd)/$target/dist/$name"
