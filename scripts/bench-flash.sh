#!/usr/bin/env bash
# A model larger than memory, streamed and mapped, under the same limits: scripts/bench-flash.sh MODEL WORKLOAD... -- [options]
#
#   --memory SIZE     memory, page cache included; the budget of the model is nine tenths of it [default: 768M]
#   --read-bps RATE   the disk [default: 500M]
#   --draft FILE      a draft model
#   --limit N         prompts of each workload [default: 1]
#   -n N              tokens of an answer at most [default: 16]
#   --ctx N           tokens of context [default: 1408]
#   --modes LIST      as of fulcrum bench [default: llama,off,chain:8,auto]
#
# A WORKLOAD is a file of prompts (models/workloads). Needs root and control groups (scripts/with-limits.sh), python3, and a
# release build. The prepared file is made first, without limits. Every mode is a process of its own, with cold caches and under the same
# limits, with a Q8_0 cache. What is printed: tokens per second by workload, their geometric mean and what it is to the others', what a pass read, the share of
# reading that computing did not wait for, predicted against measured time of passes, the peak of memory that was charged.
set -euo pipefail
cd "$(dirname "$0")/.."

model=${1:?usage: scripts/bench-flash.sh MODEL WORKLOAD... -- [options]}
shift
workloads=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do workloads+=("$1") && shift; done
[ $# -eq 0 ] || shift
memory=768M bps=500M draft=() limit=1 n=16 ctx=1408 modes=llama,off,chain:8,auto
while [ $# -gt 0 ]; do
  case $1 in
    --memory) memory=$2 ;;
    --read-bps) bps=$2 ;;
    --draft) draft=(--draft "$2") ;;
    --limit) limit=$2 ;;
    -n) n=$2 ;;
    --ctx) ctx=$2 ;;
    --modes) modes=$2 ;;
    *)
      echo "bench-flash: unknown option $1" >&2
      exit 2
      ;;
  esac
  shift 2
done
fulcrum=${CARGO_TARGET_DIR:-target}/release/fulcrum
[ -x "$fulcrum" ] || { echo 'bench-flash: no release build: run cargo build --release' >&2 && exit 1; }
budget=$(awk -v size="$memory" 'BEGIN { printf "%d%s", size * (size ~ /G$/ ? 921 : 0.9), size ~ /G$/ ? "M" : substr(size, length(size)) }')
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT

same=(--ctx "$ctx" --kv-type q8_0)
"$fulcrum" plan "$model" "${same[@]}" "${draft[@]}" --memory-budget "$budget"
"$fulcrum" generate -m "$model" -p x --raw -n 1 "${same[@]}" --memory-budget "$budget" >/dev/null
for mode in ${modes//,/ }; do
  own=(--memory-budget "$budget" "${draft[@]}")
  [ "$mode" != llama ] || own=()
  scripts/with-limits.sh --memory "$memory" --read-bps "$bps" --disk "$model" --cold "$model" -- \
    "$fulcrum" bench -m "$model" --workload "${workloads[@]}" --limit "$limit" -n "$n" --modes "$mode" "${same[@]}" --rounds 1 --cold --json "${own[@]}" \
    >"$results/$mode.json" 2>"$results/$mode.err" || { cat "$results/$mode.err" >&2 && exit 1; }
done
python3 - "$results" "$modes" <<'END'
import json, math, re, sys
from pathlib import Path

folder, modes = Path(sys.argv[1]), sys.argv[2].split(",")
means = {}
for mode in modes:
    rows = json.loads((folder / f"{mode}.json").read_text())["rows"]
    peak = re.search(r"peak memory (\d+) .*, (\w+) processes", (folder / f"{mode}.err").read_text())
    means[mode] = math.exp(sum(math.log(row["decode_tokens_per_s"]) for row in rows) / len(rows))
    speeds = " ".join(f"{row['workload']} {row['decode_tokens_per_s']:.3f}" for row in rows)
    ratios = " ".join(f"{means[mode] / mean:.2f}x {name}" for name, mean in means.items() if name != mode)
    print(f"{mode:8} {speeds} | mean {means[mode]:.3f} tokens/s {ratios}")
    flash = [row["flash"] for row in rows if row["flash"]]
    if flash:
        mean = lambda key: sum(f[key] for f in flash) / len(flash)
        length = sum(row["accepted_length"] for row in rows) / len(rows)
        predicted = " ".join(f"{row['predicted_over_measured']:.2f}" for row in rows)
        print(f"{'':8} {length:.2f} tokens per pass, {mean('gb_per_pass'):.3f} GB per pass at {mean('gb_per_s'):.3f} GB/s, overlap {mean('overlap'):.2f}, predicted/measured {predicted}")
    if peak:
        print(f"{'':8} peak of charged memory {int(peak[1]) / 1e6:.0f} MB, {peak[2]} processes killed")
END
