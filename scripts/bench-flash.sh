#!/usr/bin/env bash
# A model larger than memory, streamed and mapped, under the same limits: scripts/bench-flash.sh MODEL PROMPT [options]
#
#   --memory SIZE     memory, page cache included, and the budget of the model but for a tenth [default: 768M]
#   --read-bps RATE   the disk [default: 500M]
#   --draft FILE      a draft model
#   -n N              tokens [default: 16]
#   --only LIST       of: llama.cpp plain chain auto [default: all]
#
# PROMPT is a file. Needs root and control groups (scripts/with-limits.sh), and a release build. The prepared file is made first,
# without limits. Every run begins with a cold cache. What is printed: tokens per second of decoding, tokens per pass, GB read per pass,
# the share of reading that computing did not wait for, peak resident set; and after each what the limits saw.
set -euo pipefail
cd "$(dirname "$0")/.."

model=${1:?MODEL} prompt=${2:?PROMPT}
shift 2
memory=768M bps=500M draft=() n=16 only='llama.cpp plain chain auto'
while [ $# -gt 0 ]; do
  case $1 in
    --memory) memory=$2 ;;
    --read-bps) bps=$2 ;;
    --draft) draft=(--draft "$2") ;;
    -n) n=$2 ;;
    --only) only=$2 ;;
    *)
      echo "bench-flash: unknown option $1" >&2
      exit 2
      ;;
  esac
  shift 2
done
fulcrum=${CARGO_TARGET_DIR:-target}/release/fulcrum
budget=$(awk -v size="$memory" 'BEGIN { printf "%d%s", size * (size ~ /G$/ ? 921 : 0.9), size ~ /G$/ ? "M" : substr(size, length(size)) }')

run() {
  local name=$1 json
  shift
  json=$(scripts/with-limits.sh --memory "$memory" --read-bps "$bps" --disk "$model" --cold "$model" -- \
    "$fulcrum" generate -m "$model" -f "$prompt" -n "$n" --temp 0 --ctx 512 --json "$@")
  awk -v name="$name" -v json="$json" '
    function number(key,  at) {
      at = match(json, "\"" key "\":[0-9.e+-]+")
      return at ? substr(json, RSTART + length(key) + 3, RLENGTH - length(key) - 3) + 0 : 0
    }
    BEGIN {
      split(json, part, "\"decode_flash\":")
      passes = number("target_passes"); rate = number("decode_tokens_per_s"); length_ = number("accepted_length")
      rss = number("peak_rss_bytes"); json = part[2]
      bytes = number("bytes"); busy = number("busy_s"); stalled = number("stalled_s")
      printf "%-10s %8.3f tokens/s %6.2f per pass %7.3f GB/pass overlap %5.2f peak %5.0f MB\n", name, rate, length_, \
        passes ? bytes / passes / 1e9 : 0, busy ? 1 - stalled / busy : 0, rss / 1e6
    }'
}

"$fulcrum" plan "$model" --memory-budget "$budget" --ctx 512
"$fulcrum" generate -m "$model" -p x --raw -n 1 --ctx 512 --memory-budget "$budget" >/dev/null
for name in $only; do
  case $name in
    llama.cpp) run llama.cpp --executor llama.cpp --drafting off ;;
    plain) run plain --memory-budget "$budget" --drafting off ;;
    chain) run chain --memory-budget "$budget" --drafting chain:8 "${draft[@]}" ;;
    auto) run auto --memory-budget "$budget" "${draft[@]}" ;;
    *) echo "bench-flash: nothing is called $name" >&2 && exit 2 ;;
  esac
done
