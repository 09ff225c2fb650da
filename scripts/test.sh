#!/usr/bin/env bash
# Runs every test: scripts/test.sh [--strict]
#
# Sets the machine up as demo.sh does. A part whose tool cannot be had here is reported as skipped, by name; with --strict
# (continuous integration) that is a failure. All parts run even after one failed; the summary stands at the end, and behind it
# why each part failed. What each printed stays in build/test.
# The C++ backend is built once, in the release profile: every cargo command that needs it selects the whole workspace,
# because another selection of packages or another profile would be another five-minute build.
# What streaming costs is measured by hand, on a quiet machine: JUnit and XCTest skip these two tests here, --strict or not.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

CARGO_DENY_VERSION=0.20.2

strict=no
case "${1:-}" in
  '') ;;
  --strict) strict=yes ;;
  *)
    echo "usage: scripts/test.sh [--strict]" >&2
    exit 2
    ;;
esac

. scripts/setup.sh

logs=build/test
rm -rf "$logs"
mkdir -p "$logs"

summary=()
reasons=()
passed=0
failed=0
skipped=0

# reason LOG: the lines that tell what failed, as cargo, JUnit, XCTest and unittest write them, or else the last ones.
reason() {
  local lines
  lines=$(grep -E -A 1 'panicked at|^error|: error:|^\[ERROR\] +[A-Za-z]+Test\.|^(FAIL|ERROR): |^[A-Za-z]+Error: ' "$1" | grep -v '^--$' | head -n 6)
  printf '%s\n' "${lines:-$(tail -n 3 "$1")}" | cut -c 1-300
}

# part NAME COMMAND...: runs the command, keeps the result for the summary.
part() {
  local name=$1 start=$SECONDS log=${1//,/}
  log=$logs/${log// /-}.log
  shift
  printf '\n=== %s: %s\n' "$name" "$*"
  "$@" 2>&1 | tee "$log"
  if [ "${PIPESTATUS[0]}" = 0 ]; then
    passed=$((passed + 1))
    summary+=("$(printf 'ok       %-28s %5d s' "$name" $((SECONDS - start)))")
  else
    failed=$((failed + 1))
    printf -- '--- FAILED: %s\n' "$name"
    summary+=("$(printf 'FAILED   %-28s %5d s' "$name" $((SECONDS - start)))")
    reasons+=("--- $log" "$(reason "$log")")
  fi
}

# skip NAME REASON
skip() {
  printf '\n=== %s: skipped: %s\n' "$1" "$2"
  if [ "$strict" = yes ]; then
    failed=$((failed + 1))
    summary+=("$(printf 'FAILED   %-28s nothing may be skipped: %s' "$1" "$2")")
  else
    skipped=$((skipped + 1))
    summary+=("$(printf 'skipped  %-28s %s' "$1" "$2")")
  fi
}

has_component() {
  cargo "$1" --version >/dev/null 2>&1 || { may_install && have rustup && rustup component add "$2" >/dev/null 2>&1; }
}

shell_scripts() {
  printf '%s\n' scripts/*.sh .ci/run
}

check_shell_syntax() {
  local file
  for file in $(shell_scripts); do bash -n "$file" || return 1; done
}

run_shellcheck() {
  shell_scripts | xargs shellcheck --external-sources
}

doc_without_warnings() {
  RUSTDOCFLAGS='-D warnings' cargo doc --release --workspace --no-deps --quiet
}

# An environment of our own for the Python scripts, beside the build; made again when their pins change. Training needs more
# than this (torch); its tests do not.
prepare_python() {
  local venv=build/venv pins
  pins=$(grep -E '^(gguf|numpy)==' models/train/requirements.txt) || return 1
  [ "$(cat "$venv/pins" 2>/dev/null)" != "$pins" ] || return 0
  # Word splitting is meant: one package per word.
  # shellcheck disable=SC2086
  rm -rf "$venv" && python3 -m venv "$venv" && "$venv/bin/pip" install --quiet $pins && echo "$pins" >"$venv/pins"
}

# The version is Cargo.toml's; two places have to type it again.
check_versions() {
  local version typed
  version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
  typed=$(
    sed -n 's/^fulcrum-llm = .* version = "\([^"]*\)".*/Cargo.toml: \1/p' Cargo.toml
    grep -HoE 'dev\.fulcrum:fulcrum-[a-z]+:[0-9][^"]*' README.md bindings/README.md | sed 's/:dev.*:/: /'
  )
  printf 'version %s, typed again in\n%s\n' "$version" "$typed"
  printf '%s\n' "$typed" | grep -q '^Cargo.toml:' && printf '%s\n' "$typed" | grep -q '^README.md:' &&
    ! printf '%s\n' "$typed" | grep -vE ": ${version//./\\.}\$"
}

part 'shell syntax' check_shell_syntax
part 'one version' check_versions
if have shellcheck || install_packages shellcheck; then
  part 'shellcheck' run_shellcheck
else
  skip 'shellcheck' 'shellcheck is not installed'
fi

if has_component fmt rustfmt; then
  part 'formatting' cargo fmt --all -- --check
else
  skip 'formatting' 'rustfmt is not installed (rustup component add rustfmt)'
fi

part 'rules and sessions, no C++' cargo test --quiet --no-fail-fast --no-default-features -p fulcrum-llm
part 'the workspace, release' cargo test --no-fail-fast --release --workspace
part 'what drafting costs' cargo test --release --workspace --test speculation -- --ignored

if has_component clippy clippy; then
  part 'clippy' cargo clippy --release --workspace -- -D warnings
  part 'clippy, no C++' cargo clippy --quiet --no-default-features -p fulcrum-llm -- -D warnings
  # In tests a cast that truncates is a wrong test, not a wrong answer.
  part 'clippy, tests' cargo clippy --release --workspace --all-targets -- -D warnings -A clippy::cast_possible_truncation
else
  skip 'clippy' 'clippy is not installed (rustup component add clippy)'
fi
part 'documentation' doc_without_warnings

has_cargo_deny() {
  if cargo deny --version >/dev/null 2>&1; then return 0; fi
  may_install || return 1
  printf '\nsetup: installing cargo-deny %s, once per machine: about five minutes\n' "$CARGO_DENY_VERSION"
  cargo install --locked --quiet "cargo-deny@$CARGO_DENY_VERSION"
}

# Licences and sources only: the advisory database is fetched from the network at the time of the check (`just advisories`).
if has_cargo_deny; then
  part 'licences and sources' cargo deny --log-level error check bans licenses sources
else
  skip 'licences and sources' "cargo-deny $CARGO_DENY_VERSION could not be installed"
fi

if [ -f core/fuzz/Cargo.toml ]; then
  part 'fuzz targets build' cargo check --quiet --manifest-path core/fuzz/Cargo.toml
fi

# The packages for apps, on real runtimes: built for any CPU (a C++ build of its own), with the generated code compared first. Their
# tests read /proc and link a shared library as Linux does.
check_generated_bindings() {
  local library
  library=$(bash scripts/portable.sh) && bash scripts/generate-bindings.sh --check "$library"
}

# What a computer is told that cannot build the packages for phones; no NDK is found where nobody names one.
check_what_is_missing() {
  local said status
  said=$(env -u ANDROID_HOME -u ANDROID_NDK_HOME bash scripts/package-android.sh 2>&1)
  status=$?
  printf '%s\n' "$said"
  [ "$status" = 1 ] && printf '%s\n' "$said" | grep -q '^error: missing: the Android NDK' || return 1
  [ "$(uname -s)" != Darwin ] || return 0
  said=$(bash scripts/package-apple.sh 2>&1)
  status=$?
  printf '%s\n' "$said"
  [ "$status" = 1 ] && printf '%s\n' "$said" | grep -q '^error: missing: a Mac with Xcode'
}

# The layout of the Android package is checked with it, and the models' scripts are written in it.
has_python() {
  local check='import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))'
  python3 -c "$check" 2>/dev/null || { install_packages python3 python3-venv && python3 -c "$check"; }
}

has_java() {
  if have mvn && have javac; then return 0; fi
  install_packages maven default-jdk-headless
}

has_gradle() {
  have gradle || install_packages gradle
}

part 'generated bindings' check_generated_bindings
part 'what is missing is named' check_what_is_missing
if scripts/check-phones.sh targets >/dev/null 2>&1; then
  part 'types, for phones' bash scripts/check-phones.sh
else
  # The one part that --strict lets go: not every place that builds has rustup and its server.
  summary+=("$(printf 'not here %-28s %s' 'types, for phones' 'rustup target add does not work')")
fi
if [ "$(uname -s)" != Linux ]; then
  skip 'Kotlin and Android packages' 'their tests are for Linux'
elif has_java; then
  part 'Kotlin formatting' bash scripts/kotlin.sh lint
  part 'Kotlin package' bash scripts/kotlin.sh test
  part 'Kotlin documentation' bash scripts/kotlin.sh docs
  part 'Kotlin consumer' bash scripts/kotlin.sh consumer
  part 'Kotlin consumer, shrunk' bash scripts/kotlin.sh shrunk
  if has_python; then
    part 'Android package layout' bash scripts/check-android.sh
    if has_gradle; then
      part 'Gradle takes the packages' bash scripts/check-gradle.sh
    else
      skip 'Gradle takes the packages' 'Gradle cannot be had'
    fi
  else
    skip 'Android package layout, Gradle' 'python3 (3.11 or newer) cannot be had'
  fi
else
  skip 'Kotlin and Android packages' 'a JDK and Maven cannot be had'
fi
if [ "$(uname -s)" != Linux ]; then
  skip 'Swift package' 'its tests are for Linux'
elif bash scripts/swift.sh setup; then
  part 'Swift formatting' bash scripts/swift.sh lint
  part 'Swift package' bash scripts/swift.sh test
  part 'Swift documentation' bash scripts/swift.sh docs
  part 'Swift consumer' bash scripts/swift.sh consumer
else
  skip 'Swift package' 'Swift 6 cannot be had'
fi

if [ -d models/tests ]; then
  if has_python && prepare_python; then
    part 'Python scripts' build/venv/bin/python -m unittest discover -s models/tests
  else
    skip 'Python scripts' 'python3 (3.11 or newer) with venv, numpy and gguf cannot be had'
  fi
fi

summary+=("$(printf 'by hand  %-28s %s' 'what streaming costs' 'see docs/benchmarks.md, Kotlin and Swift')")

printf '\n=== summary\n'
printf '%s\n' "${summary[@]}"
printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" = 0 ] || {
  # Empty where parts were skipped alone, which bash 3.2 takes for unset.
  printf '%s\n' ${reasons[@]+"${reasons[@]}"}
  exit 1
}
