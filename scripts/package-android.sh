#!/usr/bin/env bash
# The Android package: scripts/package-android.sh builds build/maven/dev/fulcrum/fulcrum-android
#
# Needs the Android NDK (ANDROID_NDK_HOME, or ANDROID_HOME with an NDK in it), cargo-ndk and the Rust targets, and says which is
# missing. The result is a Maven repository: Gradle takes it with maven("build/maven") and
# implementation("dev.fulcrum:fulcrum-android:VERSION").
set -euo pipefail
cd "$(dirname "$0")/.."

# Phones, and emulators on PCs.
TARGETS='aarch64-linux-android x86_64-linux-android'

missing=()
ndk=${ANDROID_NDK_HOME:-}
[ -n "$ndk" ] || ndk=$(find "${ANDROID_HOME:-/nowhere}/ndk" -mindepth 1 -maxdepth 1 -type d 2>/dev/null | sort -V | tail -n 1) || true
[ -d "$ndk" ] || missing+=('the Android NDK, r28 or newer: sdkmanager --install "ndk;28.2.13676358", then set ANDROID_NDK_HOME')
cargo ndk --version >/dev/null 2>&1 || missing+=('cargo-ndk: cargo install cargo-ndk')
for target in $TARGETS; do
  [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ] || missing+=("the Rust target $target: rustup target add $target")
done
# The package is put together with it.
command -v python3 >/dev/null 2>&1 || missing+=('Python 3: apt-get install python3, or brew install python')
command -v mvn >/dev/null 2>&1 || missing+=('Maven: apt-get install maven, or brew install maven')
if [ ${#missing[@]} -gt 0 ]; then
  printf 'error: missing: %s\n' "${missing[@]}" >&2
  exit 1
fi

export ANDROID_NDK_HOME=$ndk
# The ABI's own minimum. The C++ library goes in with the rest: an app may bring its own.
. scripts/any-cpu.sh
libraries=$PWD/build/android/jni
rm -rf "$libraries"
cargo ndk --target arm64-v8a --target x86_64 --platform 26 --output-dir "$libraries" \
  build --profile dist --package fulcrum-ffi --features fulcrum-ffi/static-stdcxx
bash scripts/assemble-aar.sh "$libraries"
