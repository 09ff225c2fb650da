#!/usr/bin/env bash
# Checks that the library's Rust compiles for phones, without their tools: scripts/check-phones.sh [targets]
#
# Types alone, for nothing is linked: llama.cpp's build is left out for the bindings that it made for this machine, whose types are
# a phone's, and our own C++ is compiled by nobody. Whether all of it comes together, package-android.sh and package-apple.sh show.
# With `targets` it only gets what Rust needs for that, and fails where it cannot.
set -euo pipefail
cd "$(dirname "$0")/.."

TARGETS='aarch64-linux-android x86_64-linux-android aarch64-apple-ios'

for target in $TARGETS; do
  [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ] || { [ "${FULCRUM_INSTALL:-yes}" != no ] && rustup target add "$target"; } || {
    echo "error: the Rust target $target is missing: rustup target add $target" >&2
    exit 1
  }
done
[ "${1:-}" != targets ] || exit 0

work=$PWD/build/phones
mkdir -p "$work"
library=$(bash scripts/portable.sh)
# The newest: other options make another, and none goes.
bindings=$(find "$(dirname "$library")/build" -path '*/llama-cpp-sys-2-*/out/bindings.rs' -exec ls -t {} + | head -n 1)
[ -n "$bindings" ] || { echo 'error: the build left no bindings.rs of llama-cpp-sys-2' >&2 && exit 1; }
cp "$bindings" "$work/"
# What asks for Apple's SDK goes on without.
printf '#!/bin/sh\necho /\n' >"$work/xcrun"
chmod +x "$work/xcrun"

for target in $TARGETS; do
  name=${target//-/_}
  env RUSTFLAGS='-D warnings' "CXX_$name=true" "AR_$name=true" "PATH=$work:$PATH" \
    cargo check --quiet --profile dist --target "$target" --package fulcrum-ffi --config "target.$target.llama.rustc-env.OUT_DIR='$work'"
  echo "$target: compiles"
done
