#!/usr/bin/env bash
# Shows what a consumer of a package prints, from standard input, and fails unless it is what the command line answers:
# scripts/expect-answer.sh FULCRUM MODEL [readme]. kotlin.sh, swift.sh and check-gradle.sh pipe into it.
#
# The consumers print the model, the answer as it comes, and the number of tokens; the programs in the README the answer alone.
set -euo pipefail

printed=$(cat)
printf '%s\n' "$printed"
ask() {
  "$1" generate --model "$2" "${@:3}" 2>/dev/null || { echo "error: the command line $1 fails" >&2 && exit 1; }
}
# As they ask.
if [ "${3:-}" = readme ]; then
  answer=$printed
  expected=$(ask "$1" "$2" --prompt 'Why is the sky blue?')
else
  answer=$(sed '1d;$d' <<<"$printed")
  expected=$(ask "$1" "$2" --system 'Be brief.' --prompt 'What can you do for me?' --max-tokens 48)
  tail -n 1 <<<"$printed" | grep -q '^([1-9][0-9]* tokens)$' || { echo 'error: no number of tokens' >&2 && exit 1; }
fi
[ -n "$expected" ] || { echo "error: the command line $1 gives no answer" >&2 && exit 1; }
[ "$answer" = "$expected" ] || { printf 'error: the command line answers\n%s\n' "$expected" >&2 && exit 1; }
