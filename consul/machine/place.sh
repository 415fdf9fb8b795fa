#!/bin/sh
# Where this machine is, for the agent's command line: its name, and the address from which it reaches the servers.
# place.sh SERVER: the address of a server. A machine may have several interfaces, and bridges besides.
set -eu
address=$(ip -4 route get "$1" | sed -n 's/.* src \([0-9.]*\).*/\1/p' | head -n 1)
[ -n "$address" ] || {
  echo "consul-agent: no way to the server $1: ip route get $1" >&2
  exit 1
}
umask 022
echo "HOST_IP=$address" >/run/consul.place
echo "NODE_NAME=$(hostname -s | tr '[:upper:]' '[:lower:]')" >>/run/consul.place
