#!/usr/bin/env bash
# Runs every test: scripts/test.sh [--strict]
#
# Sets the machine up as demo.sh does. A part whose tool cannot be had here is reported as skipped, by name; with --strict
# (continuous integration) that is a failure. All parts run even after one failed; the summary stands at the end.
# The C++ backend is built once, in the release profile: every cargo command that needs it selects the whole workspace,
# because another selection of packages or another profile would be another five-minute build.
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

summary=()
passed=0
failed=0
skipped=0

# part NAME COMMAND...: runs the command, keeps the result for the summary.
part() {
  local name=$1 start=$SECONDS
  shift
  printf '\n=== %s: %s\n' "$name" "$*"
  if "$@"; then
    passed=$((passed + 1))
    summary+=("$(printf 'ok       %-28s %5d s' "$name" $((SECONDS - start)))")
  else
    failed=$((failed + 1))
    summary+=("$(printf 'FAILED   %-28s %5d s' "$name" $((SECONDS - start)))")
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
  cargo "$1" --version >/dev/null 2>&1 || { have rustup && rustup component add "$2" >/dev/null 2>&1; }
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

# An environment of our own for the Python scripts, beside the build; made again when the requirements change.
python_tests() {
  local venv=build/venv requirements=models/requirements.txt
  if ! cmp -s "$requirements" "$venv/requirements.txt"; then
    rm -rf "$venv" && python3 -m venv "$venv" && "$venv/bin/pip" install --quiet -r "$requirements" &&
      cp "$requirements" "$venv/requirements.txt" || return 1
  fi
  "$venv/bin/python" -m pytest -q models
}

part 'shell syntax' check_shell_syntax
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

part 'rules and sessions, no C++' cargo test --quiet --no-default-features -p fulcrum-llm
part 'the workspace, release' cargo test --release --workspace

if has_component clippy clippy; then
  part 'clippy, no C++' cargo clippy --quiet --no-default-features -p fulcrum-llm --all-targets -- -D warnings
  part 'clippy' cargo clippy --release --workspace --all-targets -- -D warnings
else
  skip 'clippy' 'clippy is not installed (rustup component add clippy)'
fi
part 'documentation' doc_without_warnings

# Licences and sources only: the advisory database is fetched from the network at the time of the check (`just advisories`).
# Installing cargo-deny costs about five minutes, once per machine.
if cargo deny --version >/dev/null 2>&1 || cargo install --locked --quiet "cargo-deny@$CARGO_DENY_VERSION"; then
  part 'licences and sources' cargo deny --log-level error check bans licenses sources
else
  skip 'licences and sources' "cargo-deny $CARGO_DENY_VERSION could not be installed"
fi

if [ -f core/fuzz/Cargo.toml ]; then
  part 'fuzz targets build' cargo check --quiet --manifest-path core/fuzz/Cargo.toml
fi

if [ -f models/requirements.txt ]; then
  if have python3 && python3 -c 'import venv' 2>/dev/null; then
    part 'Python scripts' python_tests
  else
    skip 'Python scripts' 'python3 with venv is not installed'
  fi
fi

printf '\n=== summary\n'
printf '%s\n' "${summary[@]}"
printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" = 0 ]
