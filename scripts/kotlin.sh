#!/usr/bin/env bash
# The Kotlin package: scripts/kotlin.sh test|publish|lint|format|docs|consumer|shrunk
#
#   test      compiles it with the library inside, tests it on the JVM, and publishes it into build/maven
#   publish   the same without the tests
#   lint      checks formatting and style, and parses the Kotlin in the READMEs; format sets the sources right
#   docs      makes the documentation; what an app sees and has none is an error
#   consumer  builds and runs a program that knows nothing but the published coordinates, and the README's (after test or publish)
#   shrunk    runs that program with its code shrunk by the rules that the Android package brings (after consumer)
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

sources=('src/main/kotlin/**/*.kt' 'src/test/kotlin/**/*.kt' 'consumer/src/**/*.kt')

ktlint() {
  "${maven[@]}" -f bindings/kotlin/pom.xml -P ktlint exec:exec "-Dktlint.arguments=$*"
}

work=$root/build/kotlin/consumer

# consumer FOLDER GOAL...
consumer() {
  "${maven[@]}" -f "$1/pom.xml" "-Dfulcrum.version=$version" "-Dfulcrum.repository=file:$repository" "${@:2}"
}

# classpath NAME OPTION...: the files that the consumer's dependencies are, into build/kotlin/consumer/NAME.
classpath() {
  mkdir -p "$work"
  consumer bindings/kotlin/consumer dependency:build-classpath "-Dmdep.outputFile=$work/$1" "${@:2}"
}

# Prints what the consumer prints, and fails unless it is what the command line beside the library answers.
expect_answer() {
  local library
  library=$(bash scripts/portable.sh </dev/null)
  bash scripts/expect-answer.sh "$(dirname "$library")/fulcrum" "$model" "$@"
}

case "${1:-}" in
  test | publish)
    library=$(bash scripts/portable.sh)
    mkdir -p "$natives/$(platform)"
    cp "$library" "$natives/$(platform)/"
    untested=false
    [ "$1" = test ] || untested=true
    "${maven[@]}" -f bindings/kotlin/pom.xml deploy "-Dmaven.test.skip=$untested" "-DaltDeploymentRepository=build::file:$repository" \
      "-Dfulcrum.model=$model" "-Dfulcrum.cli=$(dirname "$library")/fulcrum" ${TEST:+"-Dtest=$TEST"}
    echo "${repository#"$root/"}: dev.fulcrum:fulcrum-jvm:$version"
    ;;
  lint)
    ktlint --relative "${sources[@]}"
    # What stands in the READMEs, build.gradle.kts among it: Kotlin's parser reads it, and style is not asked for.
    folder=$root/build/kotlin/snippets
    rm -rf "$folder"
    for document in README.md bindings/README.md; do
      bash scripts/snippets.sh "$document" kotlin "$folder/$(dirname "$document")/of"
    done
    [ "$(find "$folder" -type f | wc -l)" -ge 3 ] || { echo 'error: the READMEs have less Kotlin than they had' >&2 && exit 1; }
    find "$folder" -type f -exec mv {} {}.kts \;
    printf 'root = true\n[*]\nktlint_standard = disabled\n' >"$folder/.editorconfig"
    ktlint '../../build/kotlin/snippets/**/*.kts'
    ;;
  format) ktlint --format "${sources[@]}" ;;
  docs)
    rm -rf build/kotlin/docs
    "${maven[@]}" -f bindings/kotlin/pom.xml -P dokka dokka:dokka
    # As many pages as an app has use for, and none of what carries it.
    pages=build/kotlin/docs/-fulcrum/dev.fulcrum
    for page in -model -chat-session -model-options -generation-options -generation-metrics -drafting -log-line; do
      [ -f "$pages/$page/index.html" ] || { echo "error: $page is not documented" >&2 && exit 1; }
    done
    [ -f "$pages/machine.html" ] || { echo 'error: machine() is not documented' >&2 && exit 1; }
    ! ls -d "$pages"/*native* "$pages"/*ffi-* 2>/dev/null || { echo 'error: these are not for apps' >&2 && exit 1; }
    ;;
  consumer)
    # Always from the published files, never from what an earlier run left in Maven's cache.
    rm -rf "${HOME}/.m2/repository/dev/fulcrum"
    consumer bindings/kotlin/consumer compile
    classpath program -DincludeScope=runtime
    java -cp "bindings/kotlin/consumer/target/classes:$(cat "$work/program")" MainKt "$model" | expect_answer
    # And the program that stands in the README.
    readme=$root/build/kotlin/readme
    rm -rf "$readme"
    bash scripts/snippets.sh README.md kotlin "$readme"
    mkdir -p "$readme/src/main/kotlin"
    cp bindings/kotlin/consumer/pom.xml "$readme/"
    mv "$readme/2" "$readme/src/main/kotlin/Main.kt"
    ln -s "$model" "$readme/model.gguf"
    consumer "$readme" compile
    (cd "$readme" && java -cp "target/classes:$(cat "$work/program")" MainKt) | expect_answer readme
    ;;
  shrunk)
    classpath proguard -DincludeScope=provided -P proguard
    {
      echo "-injars $root/bindings/kotlin/consumer/target/classes"
      tr ':' '\n' <"$work/program" | sed 's/.*/-injars &(!META-INF\/**)\n/'
      echo "-outjars $work/program.jar"
      for module in java.base java.desktop java.logging jdk.unsupported; do
        echo "-libraryjars <java.home>/jmods/$module.jmod(!**.jar;!module-info.class)"
      done
      # As Android's own rules say; its tools optimise otherwise.
      echo '-dontoptimize'
      echo '-dontwarn **'
      echo '-dontnote **'
      echo '-keep class MainKt { public static void main(java.lang.String[]); }'
      echo "-include $root/bindings/kotlin/android/proguard.txt"
    } >"$work/program.pro"
    java -cp "$(cat "$work/proguard")" proguard.ProGuard "@$work/program.pro" >"$work/log" || { tail -n 20 "$work/log" && exit 1; }
    java -cp "$work/program.jar" MainKt "$model" | expect_answer
    ;;
  *)
    echo 'usage: scripts/kotlin.sh test|publish|lint|format|docs|consumer|shrunk' >&2
    exit 2
    ;;
esac
