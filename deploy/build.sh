#!/usr/bin/env bash
# Builds the given targets of one CMake preset (PRESET, default release); prints what the compiler says only when it
# fails.
# Usage: [PRESET=dev] deploy/build.sh TARGET...
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
preset=${PRESET:-release}
mkdir -p "build/$preset"
log="build/$preset/build.log"

fail() {
  tail -n 60 "$log" >&2
  echo "muselet: the build failed; the whole log is in $log" >&2
  exit 1
}
werror=()
[[ "${CI:-}" == "true" ]] && werror=(-DMUSELET_WERROR=ON)
cmake --preset "$preset" "${werror[@]}" >"$log" 2>&1 || fail
[[ -f "build/$preset/bin/muselet" ]] || echo "Building (a few minutes on two cores the first time) ..."
cmake --build --preset "$preset" --target "$@" >>"$log" 2>&1 || fail
