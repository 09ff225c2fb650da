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

# What is UniFFI's own becomes internal to the packages: apps see the values (data and enum classes, the two sealed ones of
# options, machine()) and what is written by hand. UniFFI's lines for these begin with `data`, `enum` or `sealed`. What
# it leaves without documentation, and Dokka would miss, gets some. Half a surrogate pair (an app may have cut a text in the middle of
# an emoji) becomes U+FFFD, as in Swift and Rust, not an exception that is nobody's, and that keeps what is called from being freed.
sed -i.orig -E \
  -e 's/^(public )?((abstract |open |inline )?(class|interface|object|fun) )/internal \2/' \
  -e 's/^sealed class Native(Exception|Event)/internal &/' \
  -e 's/ fun .(setLogSink|nativeForecast)./ internal&/' \
  -e 's/^( +)companion object$/\1\/** For extensions. *\/ companion object/' \
  -e 's/^( +)(val v1: )/\1\/** How much. *\/ \2/' \
  -e 's/^( +)\/\/ Make sure we don.t have invalid UTF-16, check for lone surrogates\.$/\1\/\/ Lone surrogates become U+FFFD./' \
  -e 's/onMalformedInput\(CodingErrorAction\.REPORT\)/onMalformedInput(CodingErrorAction.REPLACE).replaceWith(byteArrayOf(-17, -65, -67))/' \
  "$out/kotlin/dev/fulcrum/fulcrum.kt"
sed -i.orig -E \
  -e 's/^open (class|func) /\1 /' \
  -e 's/^public (protocol |enum NativeEvent|struct FfiConverter|func (FfiConverter|uniffi|setLogSink|nativeForecast))/\1/' \
  -e '/^public *$/{N;s/^public *(\n *enum NativeError)/\1/;}' \
  "$out/swift/Fulcrum.swift"

# place FILE DESTINATION: puts a generated file into the tree, or compares it with what is there. Line ends are trimmed: the
# generator leaves spaces that no reviewer should see.
different=no
place() {
  sed -i.orig -e 's/[[:space:]]*$//' "$1"
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
