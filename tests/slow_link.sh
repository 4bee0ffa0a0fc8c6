#!/usr/bin/env bash
# Slow but honest clients get the whole answer: a server and its clients in network namespaces of
# their own, and a slow link between. Needs the right to make them, ip and tc (on Debian: iproute2),
# and curl. Run it as
#
#   cargo build --example many_series && unshare --net bash tests/slow_link.sh target/debug/examples/many_series
set -euo pipefail
program=$1
server= clients=
trap 'kill $server $clients' EXIT

unshare --net sleep 300 & clients=$!
# Until the namespace is there, its link would be this one.
until [ "$(readlink /proc/$clients/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do sleep 0.01; done
in_clients() { nsenter --net --target "$clients" "$@"; }
ip link add server type veth peer name clients netns "$clients"
ip address add 10.43.0.1/24 dev server
ip link set server up
in_clients ip address add 10.43.0.2/24 dev clients
in_clients ip link set clients up

# try RATE SERIES CLIENTS: so many clients at once, each as patient as Prometheus.
try() {
  tc qdisc replace dev server root tbf rate "$1" burst 10kb latency 400ms
  "$program" 10.43.0.1:8043 "$2" & server=$!
  until in_clients curl -s -I -o /dev/null http://10.43.0.1:8043; do sleep 0.1; done
  # After the attempts to reach it the server is idle, and its purse full.
  sleep 1
  local curls=()
  for ((i = 0; i < $3; i++)); do
    in_clients curl -sS -m 10 -o /dev/null -w '%{size_download} bytes in %{time_total} s\n' \
      http://10.43.0.1:8043/metrics & curls+=($!)
  done
  echo "$2 series, $1, $3 at once:"
  for curl in "${curls[@]}"; do wait "$curl"; done
  kill "$server"
  wait "$server" || true
  server=
}

try 1mbit 5000 1
try 1mbit 3000 2
try 10mbit 19000 2
try 1mbit 9000 1
