#!/usr/bin/env bash
# Puts an Android package together: scripts/assemble-aar.sh LIBRARIES
#
# LIBRARIES has a folder per ABI, as in arm64-v8a/libfulcrum_ffi.so. The Kotlin is that of bindings/kotlin, which needs nothing
# of Android to be compiled. The result goes into the Maven repository build/maven.
set -euo pipefail
cd "$(dirname "$0")/.."

libraries=$(realpath "${1:?usage: scripts/assemble-aar.sh LIBRARIES}")
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
work=$PWD/build/android/aar
rm -rf "$work"
mkdir -p "$work/jni" build/android/empty

mvn --batch-mode --no-transfer-progress --quiet -f bindings/kotlin/pom.xml "-Drevision=$version" "-Dnatives=$PWD/build/android/empty" \
  "-DbuildFolder=$PWD/build/android/classes" -DskipTests package
cp "build/android/classes/fulcrum-jvm-$version.jar" "$work/classes.jar"
cp -R "$libraries"/. "$work/jni/"
cp bindings/kotlin/android/AndroidManifest.xml bindings/kotlin/android/proguard.txt "$work/"
: >"$work/R.txt"

target=${FULCRUM_REPOSITORY:-$PWD/build/maven}/dev/fulcrum/fulcrum-android/$version
mkdir -p "$target"
python3 - "$work" "$target/fulcrum-android-$version.aar" <<'PYTHON'
import pathlib, struct, sys, zipfile

work, aar = pathlib.Path(sys.argv[1]), sys.argv[2]
# A loader with 16 KB pages refuses segments that are aligned to less.
for library in work.glob("jni/*/*.so"):
    elf = library.read_bytes()
    start, size, count = struct.unpack_from("<Q14xHH", elf, 32)
    headers = [elf[start + i * size :] for i in range(count)]
    loaded = [struct.unpack_from("<48xQ", header)[0] for header in headers if struct.unpack_from("<I", header)[0] == 1]
    if elf[:5] != b"\x7fELF\2" or not loaded or min(loaded) < 16384:
        sys.exit(f"error: {library} is not for 16 KB pages: its segments are aligned to {loaded}")
with zipfile.ZipFile(aar, "w", zipfile.ZIP_DEFLATED) as out:
    for file in sorted(path for path in work.rglob("*") if path.is_file()):
        out.write(file, file.relative_to(work))
PYTHON
sed "s/VERSION/$version/" bindings/kotlin/android/pom.xml >"$target/fulcrum-android-$version.pom"
echo "${FULCRUM_REPOSITORY:-build/maven}: dev.fulcrum:fulcrum-android:$version"
