# Every command a contributor types. On a machine without `just`, run the scripts themselves.

# The recipes.
default:
    @just --list

# Installs what the build needs, or says what to install.
setup:
    bash scripts/setup.sh

# Builds the release and chats: just demo [MODEL.gguf].
demo *arguments:
    bash scripts/demo.sh {{ arguments }}

# Every test; with --strict nothing may be skipped.
test *arguments:
    bash scripts/test.sh {{ arguments }}

# Rules, sessions and contracts, without the C++ backend: seconds.
fast:
    cargo test --no-default-features -p fulcrum-llm

# The release build. The whole workspace: another selection could build the C++ backend a second time.
build:
    cargo build --release

# Formatting and lints of the Rust code, as the tests check them.
lint:
    cargo fmt --all -- --check
    cargo clippy --release --workspace -- -D warnings
    cargo clippy --no-default-features -p fulcrum-llm -- -D warnings
    cargo clippy --release --workspace --all-targets -- -D warnings -A clippy::cast_possible_truncation

# Formats everything.
fmt:
    cargo fmt --all

# The staged executor beside llama.cpp's context on the same file: just bench MODEL.gguf [options].
bench model *arguments: build
    ${CARGO_TARGET_DIR:-target}/release/fulcrum bench --model {{ model }} {{ arguments }}

# Known vulnerabilities and yanked crates in the dependencies; fetches the advisory database.
advisories:
    cargo deny check advisories

# Feeds the GGUF reader for a minute; needs the nightly toolchain and cargo-fuzz.
fuzz seconds="60":
    cd core && cargo +nightly fuzz run gguf -- -max_total_time={{ seconds }}

# Writes the generated Kotlin and Swift anew, after a change of bindings/src.
bindings:
    bash scripts/generate-bindings.sh "$(bash scripts/portable.sh)"

# The Kotlin package: just kotlin test|publish|lint|format|docs|consumer|shrunk.
kotlin command="test":
    bash scripts/kotlin.sh {{ command }}

# The Swift package: just swift test|lint|format|docs|consumer.
swift command="test":
    bash scripts/swift.sh {{ command }}

# The Android package, into the Maven repository build/maven; needs the NDK.
package-android:
    bash scripts/package-android.sh

# The XCFramework for Apple's systems; needs a Mac.
package-apple:
    bash scripts/package-apple.sh
