#!/usr/bin/env bash
# The Apple package: scripts/package-apple.sh builds bindings/swift/FulcrumFFI.xcframework
#
# Static libraries for iPhones, their simulator and Macs in one framework, which Package.swift takes. Needs a Mac with Xcode and
# the Rust targets, and says which is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

TARGETS='aarch64-apple-ios aarch64-apple-ios-sim aarch64-apple-darwin x86_64-apple-darwin'

missing=()
if [ "$(uname -s)" != Darwin ] || ! command -v xcodebuild >/dev/null 2>&1; then
  missing+=('a Mac with Xcode')
fi
for target in $TARGETS; do
  [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ] || missing+=("the Rust target $target: rustup target add $target")
done
if [ ${#missing[@]} -gt 0 ]; then
  printf 'error: missing: %s\n' "${missing[@]}" >&2
  exit 1
fi

export IPHONEOS_DEPLOYMENT_TARGET=16.0 MACOSX_DEPLOYMENT_TARGET=13.0
. scripts/any-cpu.sh
# On by default for Apple's systems, and unused: the library computes on the CPU, and Package.swift does not link Metal.
export GGML_METAL=OFF
for target in $TARGETS; do
  cargo build --profile dist --package fulcrum-ffi --target "$target"
done

out=${CARGO_TARGET_DIR:-target}
mac=build/apple/macos
rm -rf build/apple bindings/swift/FulcrumFFI.xcframework
mkdir -p "$mac" build/apple/headers
cp bindings/swift/Sources/FulcrumFFI/include/* build/apple/headers/
lipo -create -output "$mac/libfulcrum_ffi.a" \
  "$out/aarch64-apple-darwin/dist/libfulcrum_ffi.a" "$out/x86_64-apple-darwin/dist/libfulcrum_ffi.a"
xcodebuild -create-xcframework \
  -library "$out/aarch64-apple-ios/dist/libfulcrum_ffi.a" -headers build/apple/headers \
  -library "$out/aarch64-apple-ios-sim/dist/libfulcrum_ffi.a" -headers build/apple/headers \
  -library "$mac/libfulcrum_ffi.a" -headers build/apple/headers \
  -output bindings/swift/FulcrumFFI.xcframework
