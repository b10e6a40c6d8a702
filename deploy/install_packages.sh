#!/usr/bin/env bash
# Installs the Debian packages of the lists given (names of files in deploy/packages, without .txt) that are missing.
# Quick and silent when none is. Needs root only when something is missing.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

missing=()
for list in "$@"; do
  while read -r package; do
    [[ -z "$package" || "$package" == \#* ]] && continue
    status=$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || echo absent)
    [[ "$status" == "install ok installed" ]] || missing+=("$package")
  done <"$here/packages/$list.txt"
done
[[ ${#missing[@]} -eq 0 ]] && exit 0

if [[ $EUID -ne 0 ]]; then
  echo "muselet: these packages are missing; install them or run this as root:" >&2
  echo "  apt-get install ${missing[*]}" >&2
  exit 2
fi
echo "Installing ${#missing[@]} packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
if ! { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  echo "muselet: installing packages failed; the whole log is in $log" >&2
  exit 1
fi
rm -f "$log"
