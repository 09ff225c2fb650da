#!/usr/bin/env bash
# Shows what a consumer of a package prints, from standard input, and fails unless it is what the command line answers to the same
# question: scripts/expect-answer.sh FULCRUM MODEL. kotlin.sh, swift.sh and check-gradle.sh pipe into it.
#
# The consumers print the model, the answer as it comes, and the number of tokens.
set -euo pipefail

printed=$(cat)
printf '%s\n' "$printed"
# As the consumers ask.
expected=$("$1" generate --model "$2" --system 'Be brief.' --prompt 'What can you do for me?' --max-tokens 48 2>/dev/null)
[ -n "$expected" ] || { echo "error: the command line at $1 gives no answer" >&2 && exit 1; }
[ "$(printf '%s\n' "$printed" | sed '1d;$d')" = "$expected" ] || {
  printf 'error: the command line answers\n%s\n' "$expected" >&2
  exit 1
}
printf '%s\n' "$printed" | tail -n 1 | grep -q '^([1-9][0-9]* tokens)$' || { echo 'error: no number of tokens' >&2 && exit 1; }
