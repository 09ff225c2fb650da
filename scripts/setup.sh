#!/usr/bin/env bash
# What a fresh machine needs before cargo can build the C++ backend: cmake, make, a C++ compiler, clang and libclang.
#
# Sourced by demo.sh, test.sh and swift.sh; run on its own it only sets up. Installs what is missing through apt-get (Debian,
# Ubuntu) or Homebrew (macOS). Where it may not, or with FULCRUM_INSTALL=no, it says exactly what to install and exits 1.
# Does nothing and takes no time where everything is there. Written for bash 3.2, which macOS has.

setup_fail() {
  printf 'error: %s\n' "$@" >&2
  exit 1
}

have() {
  command -v "$1" >/dev/null 2>&1
}

# Root already, sudo without a password, or somebody there to type it.
may_be_root() {
  [ "$(id -u)" = 0 ] || { have sudo && { sudo -n true 2>/dev/null || [ -t 0 ]; }; }
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

may_install() {
  [ "${FULCRUM_INSTALL:-yes}" != no ]
}

# Installs packages by the names they have with this machine's package manager; fails where it may not.
install_packages() {
  may_install || return 1
  if have apt-get; then
    may_be_root || return 1
    echo "setup: installing $*" >&2
    as_root apt-get -qq update >&2 &&
      as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends \
        -o DPkg::Lock::Timeout=300 install "$@" >&2
  elif have brew; then
    echo "setup: installing $*" >&2
    brew install --quiet "$@" >&2
  else
    return 1
  fi
}

cpp_compiles() {
  local compiler=${CXX:-c++}
  have "$compiler" && echo '#include <vector>' | "$compiler" -x c++ -fsyntax-only - 2>/dev/null
}

# bindgen loads libclang at build time; these are the places where it looks.
has_libclang() {
  local folder file
  for folder in "${LIBCLANG_PATH:-}" \
    /usr/lib/llvm-*/lib /usr/lib/llvm*/lib /usr/lib/*-linux-gnu /usr/lib64 /usr/lib /usr/local/lib \
    /Library/Developer/CommandLineTools/usr/lib /opt/homebrew/opt/llvm/lib /usr/local/opt/llvm/lib \
    "$(xcode-select -p 2>/dev/null)/Toolchains/XcodeDefault.xctoolchain/usr/lib"; do
    for file in "$folder"/libclang.so* "$folder"/libclang-[0-9]*.so* "$folder"/libclang.dylib; do
      [ -e "$file" ] && return 0
    done
  done
  return 1
}

check_rust() {
  # shellcheck disable=SC1091
  have cargo || { [ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"; }
  local wanted found
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml")
  have cargo || setup_fail "Rust is missing: install Rust $wanted or newer with rustup (https://rustup.rs)"
  found=$(rustc --version | sed 's/^rustc \([0-9]*\.[0-9]*\).*/\1/')
  if [ "${found%%.*}" -lt "${wanted%%.*}" ] ||
    { [ "${found%%.*}" = "${wanted%%.*}" ] && [ "${found#*.}" -lt "${wanted#*.}" ]; }; then
    setup_fail "Rust $found is too old: Rust $wanted or newer is needed (rustup update stable)"
  fi
}

# Names of what is missing, as packages of this machine's package manager.
missing_packages() {
  case "$(uname -s)" in
    Darwin)
      have cmake || echo cmake
      ;;
    *)
      have cmake || echo cmake
      have make || echo make
      cpp_compiles || echo g++
      have clang || echo clang
      has_libclang || echo libclang-dev
      ;;
  esac
}

check_native_tools() {
  if [ "$(uname -s)" = Darwin ] && ! { cpp_compiles && has_libclang; }; then
    setup_fail "the Xcode command line tools are missing (C++ compiler, libclang): run 'xcode-select --install' and try again"
  fi
  local missing
  missing=$(missing_packages | tr '\n' ' ')
  missing=${missing% }
  [ -n "$missing" ] || return 0
  # Word splitting is meant: one package per word.
  # shellcheck disable=SC2086
  install_packages $missing || say_what_to_install "$missing"
  missing=$(missing_packages | tr '\n' ' ')
  [ -z "$missing" ] || say_what_to_install "${missing% }"
}

say_what_to_install() {
  local sudo='sudo '
  [ "$(id -u)" != 0 ] || sudo=''
  if have apt-get; then
    setup_fail "missing: $1" "install with: ${sudo}apt-get update && ${sudo}apt-get install $1"
  elif [ "$(uname -s)" = Darwin ]; then
    setup_fail "missing: $1" "install with Homebrew (https://brew.sh): brew install $1"
  else
    setup_fail "missing (Debian's names): $1" "install them with this system's package manager; see README.md, \"Building\""
  fi
}

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
check_rust
check_native_tools
