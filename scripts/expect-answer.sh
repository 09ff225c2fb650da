#!/usr/bin/env bash
# Shows what a consumer of a package prints, from standard input, and fails if it ends without an answer: kotlin.sh and swift.sh pipe
# into it. The consumers print the number of tokens last, which is 0 for no answer.
exec awk '{ print } /^\([1-9][0-9]* tokens\)$/ { answered = 1 } END { if (!answered) print "error: no answer" >"/dev/stderr"; exit !answered }'
