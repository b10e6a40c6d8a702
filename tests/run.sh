#!/usr/bin/env bash
# Installs what the tests need, builds, runs every test, and closes with "N passed, N failed, N skipped".
#
# Usage: tests/run.sh [--long] [--sanitizers] [--filter GTEST_FILTER]
#   --long        twenty times the seeds of the property tests
#   --sanitizers  the unit tests under AddressSanitizer + UBSan and under ThreadSanitizer instead of the everyday run
#   --filter      only unit tests whose name matches (GoogleTest's syntax); no end-to-end tests
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

sanitizers=false
filter=""
while [[ $# -gt 0 ]]; do
  case "$1" in
    --long) export MUSELET_TEST_LONG=1 ;;
    --sanitizers) sanitizers=true ;;
    --filter) filter=${2:?--filter needs a pattern}; shift ;;
    -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "run.sh: unknown argument $1 (try --help)" >&2; exit 2 ;;
  esac
  shift
done

deploy/install_packages.sh build test
deploy/fetch_model.sh >/dev/null

results="$root/build/test-results"
rm -rf "$results"
mkdir -p "$results"

reports=()
unit_tests() { # preset, seconds for a test program
  echo "== Unit tests ($1)"
  reports+=("$1.ctest.xml")
  PRESET=$1 deploy/build.sh all
  mkdir -p "$results/$1"
  # A program that dies writes no report: summary.py sees that from CTest's own.
  GTEST_OUTPUT="xml:$results/$1/" GTEST_FILTER="${filter:-*}" ctest --test-dir "build/$1" -j 2 \
    --timeout "$2" --output-on-failure --output-junit "$results/$1.ctest.xml" --quiet \
    --output-log "$results/$1.log" || true
}

if $sanitizers; then
  export ASAN_OPTIONS="detect_leaks=1:strict_string_checks=1" UBSAN_OPTIONS="print_stacktrace=1"
  export LSAN_OPTIONS="suppressions=$root/tests/support/lsan.supp:print_suppressions=0"
  export TSAN_OPTIONS="suppressions=$root/tests/support/tsan.supp:second_deadlock_stack=1"
  unit_tests asan-ubsan 3600  # the real model is ten and more times slower under them
  unit_tests tsan 3600
else
  unit_tests release 900
  if [[ ! -f build/release/bin/libmuselet_cuda.so ]]; then
    why="no nvcc: the CUDA plugin with NCCL was not compiled, nor tested"
    echo "SKIPPED  $why"
    echo "<testsuite><testcase classname=\"cuda\" name=\"plugin\"><skipped message=\"$why\"/></testcase></testsuite>" \
      >"$results/release/cuda_plugin.xml"
  fi
  if [[ -z "$filter" ]]; then
    echo "== End-to-end tests"
    reports+=(pytest.xml)
    venv="$root/build/venv"
    [[ -x "$venv/bin/python" ]] || python3 -m venv "$venv"
    if ! cmp -s tests/requirements.txt "$venv/requirements.txt"; then
      "$venv/bin/pip" install --quiet --disable-pip-version-check -r tests/requirements.txt
      cp tests/requirements.txt "$venv/requirements.txt"
    fi
    "$venv/bin/python" -m pytest tests/integration tests/bench -q --junit-xml "$results/pytest.xml" || true
  fi
fi
python3 tests/summary.py "$results" tests/skips.txt "${reports[@]}"
