#!/bin/sh
# Makes everything in models/ that is not written by hand: tokenizer, both models, workloads, loss curve.
#
#   models/train/make.sh assistant-dialogues.txt.gz [WORK_FOLDER]
#
# Run it again after an interruption: training resumes from the last checkpoint in the work folder.
set -eu
dialogues=${1:?the dialogues file, see models/README.md}
work=${2:-build/pocket}
here=$(cd "$(dirname "$0")" && pwd)
models=$(dirname "$here")
python=${PYTHON:-python3}
warm_tokens=${WARM_TOKENS:-3000000}
tokens=${TOKENS:-32000000}
second_tokens=${SECOND_TOKENS:-3600000}
third_tokens=${THIRD_TOKENS:-1700000}
last_tokens=${LAST_TOKENS:-2600000}
draft_tokens=${DRAFT_TOKENS:-3200000}
export OMP_NUM_THREADS=1
mkdir -p "$work"
tokenizer=$models/pocket-tokenizer.json
[ -f "$work/tokenizer.done" ] || "$python" "$here/tokenizer.py" --dialogues "$dialogues" --out "$tokenizer"
touch "$work/tokenizer.done"
common="--work $work --tokenizer $tokenizer --dialogues $dialogues"
# shellcheck disable=SC2086
nice -n 19 "$python" "$here/train.py" warm $common --tokens "$warm_tokens"
# shellcheck disable=SC2086
nice -n 19 "$python" "$here/train.py" target $common --name main --tokens "$tokens"
# shellcheck disable=SC2086
nice -n 19 "$python" "$here/train.py" target $common --name second --start "$work/main.pt" --tokens "$second_tokens" --seed 2 --peak 0.5
# shellcheck disable=SC2086
nice -n 19 "$python" "$here/train.py" target $common --name third --start "$work/second.pt" --tokens "$third_tokens" --seed 3 --peak 0.4
# shellcheck disable=SC2086
nice -n 19 "$python" "$here/train.py" last $common --start "$work/third.pt" --tokens "$last_tokens" --seed 4 --peak 0.5
"$python" "$here/average.py" "$work/target.pt" "$work/main.pt" "$work/second.pt" "$work/third.pt" "$work/last.pt"
# shellcheck disable=SC2086
nice -n 19 "$python" "$here/train.py" draft $common --tokens "$draft_tokens"
"$python" "$here/export.py" "$work/target.pt" "$models/pocket.gguf" --tokenizer "$tokenizer" --name "Pocket"
"$python" "$here/export.py" "$work/draft.pt" "$models/pocket-draft.gguf" --tokenizer "$tokenizer" --name "Pocket draft"
"$python" "$here/workloads.py" --tokenizer "$tokenizer" --dialogues "$dialogues" --out "$models"
"$python" "$here/curve.py" --work "$work" --out "$models/loss.svg"
