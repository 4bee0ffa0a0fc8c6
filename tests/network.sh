#!/usr/bin/env bash
# What needs a network of its own, and cannot be a test in Rust. Needs the right to make network
# namespaces, and the programs ip, tc, curl, strace and sysctl. Run it as
#
#   cargo build --examples && unshare --net bash tests/network.sh target/debug/examples
set -euo pipefail
programs=$1
server= clients=
trap 'kill $server $clients' EXIT
ip link set lo up

echo 'The programs of the README serve on although a client has hung up and nobody reads what they'
echo 'print. They make no `writev`, which could end them by a SIGPIPE.'
exec 4> >(:) # a pipe whose reader has gone
wait $!
serves() { # PROGRAM PATTERN: the second client gets a line with that pattern
  local calls=$(mktemp)
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
  rm "$calls"
}
serves jobs '^jobs_total{worker="b"} [0-9]'
serves network '^network_receive_bytes_total{device="lo"} [0-9]'

echo 'Clients behind a slow link get the whole response, alone or two at once.'
unshare --net sleep 300 & clients=$!
# Until the namespace is there, its link would be this one.
until [ "$(readlink /proc/$clients/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do sleep 0.01; done
in_clients() { nsenter --net --target "$clients" "$@"; }
ip link add server type veth peer name clients netns "$clients"
ip address add 10.43.0.1/24 dev server
ip link set server up
in_clients ip address add 10.43.0.2/24 dev clients
in_clients ip link set clients up
reads() { # RATE SERIES CLIENTS
  tc qdisc replace dev server root tbf rate "$1" burst 10kb latency 400ms
  "$programs/many_series" 10.43.0.1:8043 "$2" & server=$!
  until in_clients curl -s -I -o /dev/null http://10.43.0.1:8043; do sleep 0.1; done
  local curls=() curl
  for ((i = 0; i < $3; i++)); do
    in_clients curl -sS -m 10 -o /dev/null http://10.43.0.1:8043/metrics \
      -w "$2 series at $1: %{size_download} bytes in %{time_total} s\n" & curls+=($!)
  done
  for curl in "${curls[@]}"; do wait "$curl"; done
  kill "$server"
  wait "$server" || true
  server=
}
reads 1mbit 5000 1
reads 1mbit 3000 2
reads 10mbit 19000 2
reads 1mbit 9000 1
