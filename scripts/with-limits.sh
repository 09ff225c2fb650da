#!/usr/bin/env bash
# Runs a command with little memory and a slow disk: scripts/with-limits.sh [options] -- COMMAND...
#
#   --memory SIZE     limit of memory, page cache included (600M, 1G: powers of 1024)
#   --read-bps RATE   limit of reading from the disk, bytes per second (500M, 1.5G: powers of 1000)
#   --disk PATH       the disk that PATH is on is the one that is limited [default: the current folder's]
#   --cold FILE       drops FILE from the page cache first, so that it has to be read; may be given several times
#
# Needs root, and control groups with the memory and block-I/O controllers, version 1 or 2. What was made is removed again however
# the command ends. The last line on standard error says the peak of memory charged to the command, and whether any of its
# processes was killed for want of memory. The exit code is the command's.
set -euo pipefail

die() {
  echo "with-limits: $*" >&2
  exit 2
}

# bytes SIZE UNIT: 1.5G with the unit 1000 is 1500000000.
bytes() {
  awk -v size="$1" -v unit="$2" 'BEGIN {
    if (size !~ /^[0-9]+(\.[0-9]+)?[KMG]?$/) exit 1
    power = index("KMG", substr(size, length(size)))
    printf "%d", size * unit ^ power
  }' || die "$1: not a size (600M, 1.5G)"
}

memory='' read_bps='' disk=. cold=()
while [ $# -gt 0 ]; do
  case $1 in
    --memory) memory=$(bytes "${2:-}" 1024) ;;
    --read-bps) read_bps=$(bytes "${2:-}" 1000) ;;
    --disk) disk=${2:-} ;;
    --cold) cold+=("${2:-}") ;;
    --) shift && break ;;
    *) die "unknown option $1" ;;
  esac
  shift 2 || die 'an option without its value'
done
[ $# -gt 0 ] || die 'no command'
[ "$(id -u)" = 0 ] || die 'needs root'

# The whole disk, as MAJOR:MINOR: limits do not apply to partitions.
disk_number() {
  local number sys
  number=$(stat -c '%Hd:%Ld' -- "$disk") || die "$disk: cannot be found"
  sys=$(readlink -f "/sys/dev/block/$number") || die "$disk is not on a disk of its own ($number)"
  if [ -e "$sys/partition" ]; then cat "$(dirname "$sys")/dev"; else echo "$number"; fi
}

name=fulcrum-limits-$$
groups=()

# enter FOLDER: makes a group; the command joins it.
enter() {
  mkdir "$1" || die "$1: cannot be made"
  groups+=("$1")
}

# Called by the trap.
# shellcheck disable=SC2317
cleanup() {
  local group pid try
  for group in "${groups[@]}"; do
    for try in 1 2 3 4 5 6 7 8 9 10; do
      rmdir "$group" 2>/dev/null && break
      # Whatever the command left running is in a group of ours, and of nobody else's.
      while read -r pid; do kill -KILL "$pid" 2>/dev/null || true; done <"$group/cgroup.procs" || true
      sleep "0.$try"
    done
  done
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

v2=''
for root in /sys/fs/cgroup /sys/fs/cgroup/unified; do
  if grep -qw memory "$root/cgroup.controllers" 2>/dev/null; then v2=$root; fi
done
if [ -n "$v2" ]; then
  for controller in memory io; do
    grep -qw "$controller" "$v2/cgroup.subtree_control" || echo "+$controller" >"$v2/cgroup.subtree_control"
  done
  enter "$v2/$name"
  if [ -n "$memory" ]; then
    echo "$memory" >"$v2/$name/memory.max"
    echo 0 >"$v2/$name/memory.swap.max" 2>/dev/null || true
  fi
  [ -z "$read_bps" ] || echo "$(disk_number) rbps=$read_bps" >"$v2/$name/io.max"
else
  if [ -n "$memory" ]; then
    group=/sys/fs/cgroup/memory/$name
    [ -d /sys/fs/cgroup/memory ] || die 'no memory controller'
    enter "$group"
    echo "$memory" >"$group/memory.limit_in_bytes"
    echo "$memory" >"$group/memory.memsw.limit_in_bytes" 2>/dev/null || true
  fi
  if [ -n "$read_bps" ]; then
    group=/sys/fs/cgroup/blkio/$name
    [ -d /sys/fs/cgroup/blkio ] || die 'no block-I/O controller'
    enter "$group"
    echo "$(disk_number) $read_bps" >"$group/blkio.throttle.read_bps_device"
  fi
fi

for file in "${cold[@]}"; do
  sync -- "$file"
  dd if="$file" iflag=nocache count=0 status=none || die "$file: cannot be dropped from the cache"
done

# The shell joins the groups and becomes the command; a signal to this script reaches it through cleanup.
(
  for group in "${groups[@]}"; do echo "$BASHPID" >"$group/cgroup.procs"; done
  exec "$@"
) &
child=$!
code=0
wait "$child" || code=$?

for group in "${groups[@]}"; do
  if [ -e "$group/memory.max_usage_in_bytes" ]; then
    peak=$(cat "$group/memory.max_usage_in_bytes")
    kills=$(awk '$1 == "oom_kill" { print $2 }' "$group/memory.oom_control")
  elif [ -e "$group/memory.peak" ]; then
    peak=$(cat "$group/memory.peak")
    kills=$(awk '$1 == "oom_kill" { print $2 }' "$group/memory.events")
  else
    continue
  fi
  echo "with-limits: peak memory $peak bytes of ${memory:-no limit}, ${kills:-unknown} processes killed for want of memory" >&2
done
exit "$code"
