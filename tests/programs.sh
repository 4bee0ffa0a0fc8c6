#!/usr/bin/env bash
# The programs of the README that listen on a port of their own choice: they serve on although a
# client has hung up and nobody reads what they say of it. In a network namespace the port is free.
# Needs the right to make one, ip (on Debian: iproute2), and curl. Run it as
#
#   cargo build --examples && unshare --net bash tests/programs.sh target/debug/examples
set -euo pipefail
programs=$1
server=
trap '[ -z "$server" ] || kill "$server"' EXIT
ip link set lo up

# A pipe whose reader has gone.
exec 4> >(:)
wait $!

# try PROGRAM PATTERN: it is hung up on, and then serves a line like that.
try() {
  "$programs/$1" 2>&4 & server=$!
  until exec 3<>/dev/tcp/127.0.0.1/8043; do sleep 0.1; done 2>/dev/null
  exec 3>&-
  curl -sS -m 10 http://127.0.0.1:8043/metrics | grep "$2"
  kill "$server"
  wait "$server" || true
  server=
}

try jobs '^jobs_total{worker="b"} [0-9]'
try network '^network_receive_bytes_total{device="lo"} [0-9]'
