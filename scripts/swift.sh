#!/usr/bin/env bash
# The Swift package on this machine: scripts/swift.sh setup|test|lint|format|docs|consumer
#
#   setup     finds Swift, or makes it: says nothing and exits 0 where there is one that can be used
#   test      builds the package against the library for this machine, and tests it
#   lint      checks formatting, which format sets right, and that what an app sees is documented and old enough
#   docs      compiles the documentation; a link that leads nowhere is an error
#   consumer  builds and runs a program that depends on the package as a user's would, and the one in the README
#
# Debian has Swift from 13 on. On an older Debian, and as root, setup makes a small Debian 13 with mmdebstrap in build/ and
# everything runs in there: about two minutes, 450 MB to download, 2.6 GB on disk.
set -euo pipefail
cd "$(dirname "$0")/.."

. scripts/setup.sh

PACKAGE=bindings/swift
CHROOT=${FULCRUM_SWIFT_CHROOT:-$ROOT/build/debian-13}
SCRATCH=$ROOT/build/swift

have_swift() {
  command -v swift >/dev/null 2>&1 && swift --version 2>/dev/null | grep -Eq 'Swift version ([6-9]|[1-9][0-9])\.'
}

make_chroot() {
  # A link that points nowhere from outside.
  [ ! -L "$CHROOT/usr/bin/swift" ] || return 0
  if [ "$(id -u)" != 0 ] || ! have apt-get || ! may_install; then
    echo 'error: Swift 6 is missing: install it (https://swift.org/install), or run this as root on Debian' >&2
    return 1
  fi
  have mmdebstrap || install_packages mmdebstrap || return 1
  echo "setup: making a Debian 13 with Swift in $CHROOT" >&2
  # Under another name until it is whole: an interrupted one would look like one that works.
  rm -rf "$CHROOT.part"
  mkdir -p "$(dirname "$CHROOT")"
  mmdebstrap --quiet --variant=minbase --include=ca-certificates,swiftlang,libstdc++-14-dev,libc6-dev \
    trixie "$CHROOT.part" >&2 || return 1
  mv -T "$CHROOT.part" "$CHROOT"
}

# Runs a command in the repository, in the chroot where Swift is only there; the library and the models are seen in there too. The
# mounts are the command's own and go with it.
swiftly() {
  if have_swift; then
    "$@"
    return
  fi
  make_chroot
  local folders=$ROOT file
  for file in "${FULCRUM_LIBRARY_DIR:+$FULCRUM_LIBRARY_DIR/.}" "${FULCRUM_MODEL:-}" "${FULCRUM_OVERHEAD_MODEL:-}"; do
    [ -z "$file" ] || folders+=$'\n'$(cd "$(dirname "$file")" && pwd)
  done
  # shellcheck disable=SC2016
  unshare --mount bash -c '
    set -e
    chroot=$1 root=$2 folders=$3
    shift 3
    mount -t proc proc "$chroot/proc"
    mount --rbind /dev "$chroot/dev"
    while IFS= read -r folder; do
      mkdir -p "$chroot$folder"
      mount --bind "$folder" "$chroot$folder"
    done <<<"$folders"
    exec chroot "$chroot" env HOME=/root bash -c "cd \"\$1\" && shift && exec \"\$@\"" - "$root" "$@"
  ' - "$CHROOT" "$ROOT" "$folders" "$@"
}

build_library() {
  local library
  library=$(bash scripts/portable.sh)
  FULCRUM_LIBRARY_DIR=$(cd "$(dirname "$library")" && pwd)
  FULCRUM_CLI=$FULCRUM_LIBRARY_DIR/fulcrum
  FULCRUM_MODEL=${FULCRUM_MODEL:-$ROOT/models/pocket.gguf}
  export FULCRUM_LIBRARY_DIR FULCRUM_CLI FULCRUM_MODEL
}

sources() {
  find "$PACKAGE" -name '*.swift' -not -path '*/Generated/*' -not -path '*/.build/*'
}

# What an app sees and has no comment, what throws and does not say so, and what is newer than the systems that Package.swift
# promises: the compiler here knows only Linux, where nothing is too new.
check_sources() {
  # Word splitting is meant: no path here has a space.
  # shellcheck disable=SC2046
  awk '
    function complain(reason) { print FILENAME ":" FNR ": " reason ": " $0; bad = 1 }
    FNR == 1 { comment = "" }
    /^ *\/\/\// { comment = comment $0; next }
    /^ *@/ { next }
    /^ *public / || /^    case [a-z]/ {
      if (comment == "") complain("no documentation")
      if (/throws/ && comment !~ /- Throws:/) complain("no word of what it throws")
      if (/\($/) wrapped = comment
    }
    /^ *\)/ {
      if (/throws/ && wrapped != "" && wrapped !~ /- Throws:/) complain("no word of what it throws")
      wrapped = ""
    }
    /import Synchronization|AsyncSequence<|isolation:|throws\(/ { complain("needs iOS 18 or macOS 15") }
    { comment = "" }
    END { exit bad }
  ' $(sources | grep /Sources/Fulcrum/) >&2
}

case "${1:-}" in
  setup)
    # Also that it can be entered: a container may refuse mounts.
    have_swift || { make_chroot && swiftly swift --version >/dev/null; } || {
      echo 'error: Swift 6 cannot be run here: neither installed, nor in a Debian 13 of its own, which takes root and mounts' >&2
      exit 1
    }
    ;;
  test)
    build_library
    shift
    swiftly swift test --package-path "$PACKAGE" --scratch-path "$SCRATCH/package" "$@"
    ;;
  consumer)
    build_library
    swiftly swift run --package-path "$PACKAGE/consumer" --scratch-path "$SCRATCH/consumer" consumer "$FULCRUM_MODEL" |
      bash scripts/expect-answer.sh "$FULCRUM_CLI" "$FULCRUM_MODEL"
    # And the program that stands in the README, in a folder beside the clone.
    readme=$SCRATCH/readme
    rm -rf "$readme"
    mkdir -p "$readme/app/Sources/app"
    ln -s "$ROOT" "$readme/fulcrum"
    ln -s "$FULCRUM_MODEL" "$readme/app/model.gguf"
    bash scripts/snippets.sh README.md swift "$readme"
    mv "$readme/1" "$readme/app/Package.swift"
    mv "$readme/2" "$readme/app/Sources/app/main.swift"
    # shellcheck disable=SC2016
    swiftly bash -c 'cd "$1" && swift run' - "$readme/app" |
      bash scripts/expect-answer.sh "$FULCRUM_CLI" "$FULCRUM_MODEL" readme
    ;;
  lint)
    check_sources
    # Word splitting is meant: no path here has a space.
    # shellcheck disable=SC2046
    swiftly swift format lint --strict --configuration "$PACKAGE/.swift-format" $(sources)
    ;;
  format)
    # shellcheck disable=SC2046
    swiftly swift format format --in-place --configuration "$PACKAGE/.swift-format" $(sources)
    ;;
  docs)
    build_library
    # shellcheck disable=SC2016
    swiftly bash -c '
      set -e
      package=$1 scratch=$2
      swift package --package-path "$package" --scratch-path "$scratch/package" \
        dump-symbol-graph --minimum-access-level public >/dev/null
      rm -rf "$scratch/symbols"
      mkdir -p "$scratch/symbols"
      cp "$scratch"/package/*/symbolgraph/Fulcrum.symbols.json "$scratch/symbols/"
      if grep -oE "\"title\": *\"(Native|FfiConverter)[A-Za-z]*\"" "$scratch/symbols/Fulcrum.symbols.json" | sort -u | grep .; then
        echo "error: these are not for apps: scripts/generate-bindings.sh makes them internal" >&2
        exit 1
      fi
      docc=$(dirname "$(readlink -f "$(command -v swift)")")/docc
      "$docc" convert --warnings-as-errors --fallback-display-name Fulcrum --fallback-bundle-identifier dev.fulcrum \
        "$package/Sources/Fulcrum/Fulcrum.docc" --additional-symbol-graph-dir "$scratch/symbols" --output-path "$scratch/Fulcrum.doccarchive"
    ' - "$PACKAGE" "$SCRATCH"
    ;;
  *)
    echo 'usage: scripts/swift.sh setup|test|lint|format|docs|consumer' >&2
    exit 2
    ;;
esac
