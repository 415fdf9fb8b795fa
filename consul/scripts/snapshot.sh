#!/bin/sh
# Takes a snapshot, checks it, keeps the newest: snapshot.sh DIRECTORY KEEP EVERY_HOURS [BUCKET PREFIX]
# With a bucket, puts a copy there: a machine by oss-put.py, a pod by oss-put.sh. Needs CONSUL_HTTP_ADDR and
# CONSUL_HTTP_TOKEN_FILE (a token with acl:write; what it stores holds every secret of Consul); CONSUL_CACERT for https.
# With SNAPSHOT_SERVER=<address>, only the server at that address takes one, and only while it leads. Where no leader is
# known, no snapshot can be taken, and the script fails.
set -eu
umask 077
directory=$1 keep=$2 every_hours=$3 bucket=${4:-} prefix=${5:-}
none() {
  echo "consul-snapshot: none was taken, $1. See that the servers reach each other on ports 8300 and 8301 (security group," \
    "routes), and what npm run status says; the timer tries again" >&2
  exit 1
}

if [ -n "${SNAPSHOT_SERVER:-}" ]; then
  # During an election no server knows a leader for some seconds. Where that stays so, no server takes a snapshot.
  tries=0
  until leader=$(curl -sS --max-time 10 "$CONSUL_HTTP_ADDR/v1/status/leader") && [ "${leader#*:8300}" != "$leader" ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 5 ] || none "this server knows no leader"
    sleep 2
  done
  if [ "$leader" != "\"$SNAPSHOT_SERVER:8300\"" ]; then
    echo "consul-snapshot: nothing to do here, the leader is $leader"
    exit 0
  fi
fi

newest() { ls -1 "$directory" | grep '\.snap$' | sort -r; }
# beyond COUNT: takes the files away that come after so many names on standard input.
beyond() { tail -n "+$(($1 + 1))" | while read -r old; do rm -f "$directory/$old"; done; }

mkdir -p "$directory"
name=$(date -u +%Y%m%dT%H%M%SZ)-$(uname -n).snap
trap 'rm -f "$directory"/*.partial*' EXIT
rm -f "$directory"/*.partial*
newest | beyond "$keep"
# The disk may be raft's too, and a server whose disk is full stops. So a tenth of the disk, or 2 GiB, stays free beside
# a snapshot as large as the last one.
free=$(df -Pk "$directory" | awk 'NR == 2 { spare = $2 / 10; if (spare > 2097152) spare = 2097152; print int($4 - spare) }')
need=$(du -sk "$directory/$(newest | head -n 1)" | cut -f 1)
[ "$need" -gt 0 ] || need=1
if [ "$free" -lt "$need" ]; then
  [ "$free" -gt 0 ] || free=0
  echo "consul-snapshot: none was taken, the disk of $directory is too full: $need KiB are needed, $free are there beside" \
    "what stays free for raft. Keep fewer (consul:backups.keep) or enlarge the disk" >&2
  exit 1
fi
# Right after a change of leader or of the servers there is a moment in which raft takes none.
tries=0
until consul snapshot save "$directory/$name.partial" >/dev/null; do
  tries=$((tries + 1))
  [ "$tries" -lt 5 ] || none "the leader gives none"
  sleep 2
done
report=$(consul snapshot inspect "$directory/$name.partial")
index=$(echo "$report" | awk '$1 == "Index" { print $2; exit }')
mv "$directory/$name.partial" "$directory/$name"
# This one stays, also where a clock that was ahead once left names of a later time.
newest | grep -vxF "$name" | beyond "$((keep - 1))"

here=$(dirname "$0")
if [ -n "$bucket" ] && [ -f "$here/oss-put.sh" ]; then
  sh "$here/oss-put.sh" "$bucket" "$prefix" "$directory/$name" "$name"
elif [ -n "$bucket" ]; then
  python=$(command -v python3 || echo /usr/libexec/platform-python)
  "$python" "$here/oss-put.py" "$bucket" "$prefix" "$directory/$name" "$name"
fi

# In Consul itself, where Prometheus finds it through any server, whoever took it: GET /v1/kv/...?raw is this text.
# Only a snapshot that arrived everywhere it should counts.
consul kv put consul-snapshot/metrics - >/dev/null <<METRICS
# HELP consul_snapshot_last_success_timestamp_seconds When the last snapshot was taken, checked and stored.
# TYPE consul_snapshot_last_success_timestamp_seconds gauge
consul_snapshot_last_success_timestamp_seconds $(date +%s)
# HELP consul_snapshot_interval_seconds How far apart snapshots are meant to be.
# TYPE consul_snapshot_interval_seconds gauge
consul_snapshot_interval_seconds $((every_hours * 3600))
# HELP consul_snapshot_size_bytes Size of the last snapshot.
# TYPE consul_snapshot_size_bytes gauge
consul_snapshot_size_bytes $(wc -c <"$directory/$name")
METRICS
echo "consul-snapshot: $directory/$name, raft index $index${bucket:+, and a copy in $bucket/$prefix}"
