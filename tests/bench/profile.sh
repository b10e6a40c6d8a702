#!/usr/bin/env bash
# Profiles one decode step at batch 1 and 32 with perf and writes tests/bench/PROFILE.md: the share of each phase and
# its distance from the machine's measured limit. Half a minute on an idle machine; needs perf (Debian: linux-perf).
#
# Usage: tests/bench/profile.sh [OUTPUT]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
case "${1:-}" in
  -h | --help) sed -n '2,5s/^# \{0,1\}//p' "$0"; exit 0 ;;
esac
output=$(realpath -m "${1:-$root/tests/bench/PROFILE.md}")
cd "$root"
command -v perf >/dev/null || { echo "profile.sh: perf is not installed (apt-get install linux-perf)" >&2; exit 2; }
deploy/build.sh model_bench
deploy/fetch_model.sh >/dev/null
python3 tests/bench/step_profile.py "$output"
