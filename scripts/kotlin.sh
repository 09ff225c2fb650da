#!/usr/bin/env bash
# The Kotlin package: scripts/kotlin.sh test|lint|format|consumer
#
#   test      compiles it with the library inside, tests it on the JVM, and publishes it into build/maven
#   lint      checks formatting and style; format sets them right
#   consumer  builds and runs a program that knows nothing but the published coordinates (after test)
#
# Needs a JDK and Maven, which scripts/test.sh installs.
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
root=$PWD
repository=$root/build/maven
natives=$root/build/natives
model=${FULCRUM_MODEL:-$root/models/pocket.gguf}
maven=(mvn --batch-mode --no-transfer-progress --quiet "-Drevision=$version" "-Dnatives=$natives" -Dkotlin.compiler.daemon=false)

# The name that JNA looks for a library under, inside a jar.
platform() {
  local system processor
  case "$(uname -s)" in
    Darwin) system=darwin ;;
    *) system=linux ;;
  esac
  case "$(uname -m)" in
    x86_64) processor=x86-64 ;;
    arm64 | aarch64) processor=aarch64 ;;
    *) processor=$(uname -m) ;;
  esac
  echo "$system-$processor"
}

case "${1:-}" in
  test)
    library=$(bash scripts/portable.sh)
    mkdir -p "$natives/$(platform)"
    cp "$library" "$natives/$(platform)/"
    "${maven[@]}" -f bindings/kotlin/pom.xml deploy "-DaltDeploymentRepository=build::file:$repository" \
      "-Dfulcrum.model=$model" "-Dfulcrum.cli=$(dirname "$library")/fulcrum" ${TEST:+"-Dtest=$TEST"}
    ;;
  lint) "${maven[@]}" -f bindings/kotlin/pom.xml -P ktlint exec:exec ;;
  format) "${maven[@]}" -f bindings/kotlin/pom.xml -P ktlint exec:exec -Dktlint.option=--format ;;
  consumer)
    # Always from the published files, never from what an earlier run left in Maven's cache.
    rm -rf "${HOME}/.m2/repository/dev/fulcrum"
    "${maven[@]}" -f bindings/kotlin/consumer/pom.xml compile exec:java \
      "-Dfulcrum.version=$version" "-Dfulcrum.repository=file:$repository" "-Dexec.args=$model"
    ;;
  *)
    echo 'usage: scripts/kotlin.sh test|lint|format|consumer' >&2
    exit 2
    ;;
esac
