#!/usr/bin/env bash
# Checks that a build with Gradle gets the packages by one line each, and runs the consumer with what it got: scripts/check-gradle.sh
# (after `kotlin.sh test`, `kotlin.sh consumer` and check-android.sh, which make the repositories and the program)
#
# Any Gradle does; it resolves only. Debian's, which is of 2018, is older than the plugins of Kotlin and Android, so Maven compiles.
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
model=${FULCRUM_MODEL:-$PWD/models/pocket.gguf}
work=$PWD/build/gradle

# resolved REPOSITORY COORDINATES: the files that an app with that one dependency gets, one in a line.
resolved() {
  mkdir -p "$work"
  echo "rootProject.name = 'app'" >"$work/settings.gradle"
  cat >"$work/build.gradle" <<GRADLE
apply plugin: 'java'
repositories {
    mavenCentral()
    maven { url 'file:$1' }
}
dependencies {
    implementation("$2")
}
tasks.create('classpath') {
    doLast { configurations.runtimeClasspath.each { file -> println(file) } }
}
GRADLE
  gradle --no-daemon --quiet --project-dir "$work" classpath
}

# expect FILE...: that all of them were resolved.
expect() {
  local file
  for file in "$@"; do
    grep -F "/$file" <<<"$files" || { printf 'error: an app does not get %s but\n%s\n' "$file" "$files" >&2 && exit 1; }
  done
}

pin() {
  sed -n "s/^ *<$1.version>\(.*\)<.*/\1/p" bindings/kotlin/pom.xml
}

files=$(resolved "$PWD/build/android/check/maven" "dev.fulcrum:fulcrum-android:$version")
expect "fulcrum-android-$version.aar" "jna-$(pin jna).aar" "kotlinx-coroutines-android-$(pin coroutines).jar" \
  "kotlin-stdlib-$(pin kotlin).jar"

files=$(resolved "$PWD/build/maven" "dev.fulcrum:fulcrum-jvm:$version")
expect "fulcrum-jvm-$version.jar" "jna-$(pin jna).jar"
library=$(bash scripts/portable.sh)
java -cp "bindings/kotlin/consumer/target/classes:$(paste -sd : - <<<"$files")" MainKt "$model" |
  bash scripts/expect-answer.sh "$(dirname "$library")/fulcrum" "$model"
