#!/usr/bin/env bash
# The README's programs serve on although a client has hung up and nobody reads what they print, and a
# scrape makes no `writev`, by which a SIGPIPE could end the program that uses the library. They listen
# on a fixed port, which is free in a network namespace. Needs the right to make one, ip (on Debian:
# iproute2), curl and strace. Run it as
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
calls=$(mktemp)

# try PROGRAM PATTERN: a client hangs up, and the next one gets a line with that pattern.
try() {
  strace -D -f -o "$calls" -e trace=network,writev "$programs/$1" 2>&4 & server=$!
  until exec 3<>/dev/tcp/127.0.0.1/8043; do sleep 0.1; done 2>/dev/null
  exec 3>&-
  curl -sS -m 10 http://127.0.0.1:8043/metrics | grep "$2"
  kill "$server"
  wait "$server" || true
  server=
  until grep -q 'killed by' "$calls"; do sleep 0.1; done
  grep -q 'sendto(.*MSG_NOSIGNAL' "$calls"
  if grep 'writev(' "$calls"; then exit 1; fi
}

try jobs '^jobs_total{worker="b"} [0-9]'
try network '^network_receive_bytes_total{device="lo"} [0-9]'
rm "$calls"
