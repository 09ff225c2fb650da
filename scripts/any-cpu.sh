#!/usr/bin/env bash
# What keeps the packages' library from the CPU of the machine that builds it (ADR 0012).
#
# Sourced by portable.sh, package-android.sh and package-apple.sh. Not native means AVX2 to ggml's build, unless told otherwise, which
# emulators, Rosetta and old PCs do not have; for other processors than x86-64 these switches mean nothing.
export RUSTFLAGS=''
export GGML_AVX=OFF GGML_AVX2=OFF GGML_BMI2=OFF GGML_FMA=OFF GGML_F16C=OFF
