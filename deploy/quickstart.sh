#!/usr/bin/env bash
# From a bare Debian 12 to a streamed answer: installs the packages, builds, obtains the default model, starts the
# server, asks it one question over HTTP and goes on serving until Ctrl-C.
#
# Usage: deploy/quickstart.sh [--once] [--http HOST:PORT] [--question TEXT]
#   --once      stop after the answer
#   --http      where to listen (default 127.0.0.1:8000)
#   --question  what to ask
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

once=false
http="127.0.0.1:8000"
question="In two sentences: why is the sky blue?"
while [[ $# -gt 0 ]]; do
  case "$1" in
    --once) once=true ;;
    --http) http=${2:?--http needs HOST:PORT}; shift ;;
    --question) question=${2:?--question needs a text}; shift ;;
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "quickstart.sh: unknown argument $1 (try --help)" >&2; exit 2 ;;
  esac
  shift
done

deploy/install_packages.sh build
deploy/build.sh muselet
model=$(deploy/fetch_model.sh)
muselet="$root/build/release/bin/muselet"

# Whoever answers there now is not the server that this script is about to start.
if curl --silent --max-time 2 --output /dev/null "http://$http/livez"; then
  echo "muselet: $http is taken by another process: choose another address with --http" >&2
  exit 2
fi

server=0
stop_server() {
  if [[ $server -ne 0 ]] && kill -0 "$server" 2>/dev/null; then
    kill -TERM "$server"
    wait "$server" || true
  fi
  server=0
}
trap stop_server EXIT
trap 'stop_server; exit 130' INT TERM

echo "Serving $(basename "$model")"
"$muselet" serve --config deploy/config/quickstart.yaml --http "$http" &
server=$!
until curl --silent --fail --output /dev/null "http://$http/readyz"; do
  if ! kill -0 "$server" 2>/dev/null; then
    status=0
    wait "$server" || status=$?
    server=0
    exit "$status"
  fi
  sleep 0.05
done

echo
echo "> $question"
"$muselet" chat --url "http://$http" --once "$question" --max-tokens 128 --temperature 0
cat <<END

API      http://$http/v1      (OpenAI-compatible: point any client's base URL here)
Metrics  http://$http/metrics
Health   http://$http/readyz

  curl http://$http/v1/chat/completions -H 'content-type: application/json' \\
    -d '{"messages":[{"role":"user","content":"Hello!"}],"stream":true}'
END

$once && exit 0
echo
echo "Serving until Ctrl-C."
wait "$server"
