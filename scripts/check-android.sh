#!/usr/bin/env bash
# Checks how the Android package is laid out, and that Maven finds it and what it needs: scripts/check-android.sh
#
# The NDK is not everywhere, so the package is put together here around this machine's library in place of a phone's: everything
# but the library's machine code is what scripts/package-android.sh makes. Into a repository of its own, so that nobody installs it.
set -euo pipefail
cd "$(dirname "$0")/.."

library=$(bash scripts/portable.sh)
libraries=build/android/check/jni
rm -rf build/android/check
for abi in arm64-v8a x86_64; do
  mkdir -p "$libraries/$abi"
  cp "$library" "$libraries/$abi/"
done
FULCRUM_REPOSITORY=$PWD/build/android/check/maven bash scripts/assemble-aar.sh "$libraries" >/dev/null
python3 - build/android/check/maven bindings/kotlin/pom.xml <<'PYTHON'
import io, pathlib, sys, xml.etree.ElementTree as xml, zipfile

def fail(reason):
    sys.exit(f"error: {reason}")

repository, kotlin = pathlib.Path(sys.argv[1]), sys.argv[2]
aar = next(repository.rglob("*.aar"))
pom = xml.parse(aar.with_suffix(".pom")).getroot()
project = xml.parse(kotlin).getroot()
artifact, version = pom.findtext("artifactId"), pom.findtext("version")
if aar.relative_to(repository).as_posix() != f"dev/fulcrum/{artifact}/{version}/{artifact}-{version}.aar":
    fail(f"{aar} is not where {artifact} {version} is looked for")
if pom.findtext("packaging") != "aar":
    fail("the POM's packaging is not aar")
pins = {name: project.findtext(f"properties/{name}.version") for name in ("kotlin", "coroutines", "jna")}
for dependency in pom.iterfind("dependencies/dependency"):
    name, pin = dependency.findtext("artifactId"), dependency.findtext("version")
    wanted = pins["jna" if name == "jna" else "coroutines" if "coroutines" in name else "kotlin"]
    if pin != wanted:
        fail(f"{name} is {pin} for Android and {wanted} on the JVM")
    if name == "jna" and dependency.findtext("type") != "aar":
        fail("JNA has to be the AAR: the jar has no library for Android")
if tuple(map(int, pins["jna"].split("."))) < (5, 17):
    fail(f"JNA {pins['jna']} is not for 16 KB pages: 5.17 is")

with zipfile.ZipFile(aar) as package:
    names = set(package.namelist())
    for name in ("AndroidManifest.xml", "classes.jar", "proguard.txt", "R.txt"):
        if name not in names:
            fail(f"{name} is not in the package")
    libraries = {name for name in names if name.startswith("jni/")}
    if libraries != {f"jni/{abi}/libfulcrum_ffi.so" for abi in ("arm64-v8a", "x86_64")}:
        fail(f"the libraries are {libraries}")
    xml.fromstring(package.read("AndroidManifest.xml"))
    classes = set(zipfile.ZipFile(io.BytesIO(package.read("classes.jar"))).namelist())
    if "dev/fulcrum/Model.class" not in classes or any(name.endswith(".so") for name in classes):
        fail("classes.jar has to have the classes and no library")
    kept = [line.split()[2] for line in package.read("proguard.txt").decode().splitlines() if line.startswith("-keep class dev.")]
    for name in kept:
        if name.replace(".", "/") + ".class" not in classes:
            fail(f"proguard.txt keeps {name}, which does not exist")
print(f"{aar.name}: {len(classes)} classes, {len(libraries)} libraries")
PYTHON

# As an app would ask for it, by its coordinates alone. Never from what Maven kept, and nothing of this is kept: it is no phone's.
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
kept=${HOME}/.m2/repository/dev/fulcrum/fulcrum-android
trap 'rm -rf "$kept"' EXIT
rm -rf "$kept"
app=$PWD/build/android/check/app
mkdir -p "$app"
cat >"$app/pom.xml" <<POM
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>com.example</groupId>
  <artifactId>app</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <repositories>
    <repository><id>fulcrum</id><url>file:$PWD/build/android/check/maven</url></repository>
  </repositories>
  <dependencies>
    <dependency><groupId>dev.fulcrum</groupId><artifactId>fulcrum-android</artifactId><version>$version</version><type>aar</type></dependency>
  </dependencies>
</project>
POM
mvn --batch-mode --no-transfer-progress --quiet -f "$app/pom.xml" \
  org.apache.maven.plugins:maven-dependency-plugin:3.8.1:resolve "-DoutputFile=$app/resolved"
pin() {
  sed -n "s/^ *<$1.version>\(.*\)<.*/\1/p" bindings/kotlin/pom.xml
}
for artifact in "dev.fulcrum:fulcrum-android:aar:$version" "net.java.dev.jna:jna:aar:$(pin jna)" \
  "org.jetbrains.kotlinx:kotlinx-coroutines-android:jar:$(pin coroutines)" "org.jetbrains.kotlin:kotlin-stdlib:jar:$(pin kotlin)"; do
  grep -F "$artifact:" "$app/resolved" || { echo "error: an app does not get $artifact" >&2 && exit 1; }
done
