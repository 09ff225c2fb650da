#!/usr/bin/env bash
# Writes the generated Kotlin and Swift: scripts/generate-bindings.sh [--check] LIBRARY
#
# LIBRARY is a build of bindings/, which carries the description of its own interface. With --check nothing is written: what is
# committed is compared with what would be, and a difference fails.
set -euo pipefail

check=no
if [ "${1:-}" = --check ]; then
  check=yes
  shift
fi
library=$(realpath "${1:?usage: scripts/generate-bindings.sh [--check] LIBRARY}")
cd "$(dirname "$0")/.."

KOTLIN=bindings/kotlin/src/generated/kotlin
SWIFT=bindings/swift/Sources/Fulcrum/Generated
HEADER=bindings/swift/Sources/FulcrumFFI/include

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
bindgen() {
  cargo run --quiet --release --package uniffi-bindgen -- generate --no-format --config uniffi.toml --out-dir "$out/$1" --language "$1" "$library"
}
bindgen kotlin
bindgen swift

# place FILE DESTINATION: puts a generated file into the tree, or compares it with what is there. Line ends are trimmed: the
# generator leaves spaces that no reviewer should see.
different=no
place() {
  sed -i -e 's/[[:space:]]*$//' "$1"
  if [ "$check" = no ]; then
    mkdir -p "$(dirname "$2")" && cp "$1" "$2"
  elif ! diff -u "$2" "$1" >&2; then
    different=yes
  fi
}
place "$out/kotlin/dev/fulcrum/fulcrum.kt" "$KOTLIN/dev/fulcrum/fulcrum.kt"
place "$out/swift/Fulcrum.swift" "$SWIFT/Fulcrum.swift"
place "$out/swift/FulcrumFFI.h" "$HEADER/FulcrumFFI.h"
place "$out/swift/FulcrumFFI.modulemap" "$HEADER/module.modulemap"
if [ "$different" = yes ]; then
  echo 'error: the generated bindings are not those of this source; run: just bindings' >&2
  exit 1
fi
