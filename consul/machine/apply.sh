# Applies stored user data to this machine while it runs: apply.sh DIGEST HOW SECONDS. HOW is "reload", which leaves a
# Consul that would have to be restarted as it is, or "restart". Prints what was done in its last line: reloaded,
# restarted, unchanged, or "restart needed". Waits so many SECONDS for the metadata service to hand out the user data
# with this digest: what it hands out may be older than what is stored.
wanted=$1 how=$2 seconds=$3
service=http://100.100.100.200/latest
text=$(mktemp /run/consul.apply.XXXXXX)
trap 'rm -f "$text"' EXIT

fetch() {
  token=$(curl -sf --max-time 5 -X PUT -H 'X-aliyun-ecs-metadata-token-ttl-seconds: 60' "$service/api/token") || token=
  printf 'header = "X-aliyun-ecs-metadata-token: %s"\n' "$token" |
    curl -K - -sf --max-time 30 -o "$text" "$service/user-data"
}
# The text names its own digest in one line, which does not count.
digest() { grep -v '^config=' "$text" | sha256sum | cut -c 1-16; }

waited=0
until fetch && [ "$(digest)" = "$wanted" ]; do
  if [ "$waited" -ge "$seconds" ]; then
    echo "apply: the metadata service hands out other user data than the one that was stored, $seconds seconds after; nothing was changed" >&2
    exit 1
  fi
  waited=$((waited + 2))
  sleep 2
done
CONSUL_APPLY=$how sh "$text"
