#!/usr/bin/env bash
# The code in a document: scripts/snippets.sh DOCUMENT LANGUAGE FOLDER writes each piece of that language to FOLDER/1, FOLDER/2 ...
set -euo pipefail

mkdir -p "$3"
awk -v opening="\`\`\`$2" -v folder="$3" '
  $0 == opening { n++; inside = 1; next }
  $0 == "```" { inside = 0 }
  inside { print >(folder "/" n) }
' "$1"
