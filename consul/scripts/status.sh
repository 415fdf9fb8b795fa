# Prints what a server says of itself, a word and its value in each line: status.sh DATA SNAPSHOTS UNITS.
# DATA is the directory of Consul's data, SNAPSHOTS that of snapshots and UNITS a pattern of systemd units; "" where there
# are none. What cannot be found out is left out (operate/answers.ts reads this).
API_SECONDS=3
say() { [ -z "$2" ] || echo "$1 $2"; }

self=$(api GET agent/self 2>/dev/null) || self=
field() { printf '%s' "$self" | grep -o "\"$1\":\"[^\"]*\"" | head -n 1 | cut -d '"' -f 4; }
say version "$(field Version)"
# What the server presents: a file may hold one that Consul has not read.
[ -z "$self" ] || say certificate "$(curl -skv --max-time 5 -o /dev/null "https://$(field BindAddr):8501/v1/status/leader" 2>&1 |
  sed -n 's/^\* *expire date: //p')"
say disk "$(df -Pk "$1" 2>/dev/null | awk 'NR == 2 { print $2, $4 }')"
[ -z "$2" ] || say snapshot "$(ls -1 "$2" 2>/dev/null | grep '\.snap$' | sort | tail -n 1)"
metrics=$(api GET 'kv/consul-snapshot/metrics?raw' 2>/dev/null) || metrics=
case $metrics in *consul_snapshot_last_success*) say metrics "$metrics" ;; esac
[ -z "$3" ] || systemctl list-units --failed --plain --no-legend "$3" | while read -r unit _; do say failed "$unit"; done
