# Prints what this server knows of the cluster, a line of JSON for each look: quorum.sh LOOKS SECONDS-BETWEEN.
# What it cannot find out is null (consul/quorum.ts reads this).
API_SECONDS=3

# Autopilot answers 429 with a body where something is amiss: what matters is whether it is JSON.
json() {
  body=$(api GET "$1" 2>/dev/null) || body=
  case $body in
    '{'* | '['* | '"'*) printf '%s' "$body" ;;
    *) printf null ;;
  esac
}

# Only the servers, and only what is asked for: the answers of a large cluster are larger than what comes through.
servers() {
  json agent/members | sed 's/},{"Name"/}\n{"Name"/g' | grep '"role":"consul"' |
    sed 's/.*{"Name":"\([^"]*\)".*"Status":\([0-9]*\).*/{"Name":"\1","Status":\2}/' | paste -sd, -
}

# The digest of the configuration that Consul runs with: what it was started with, or has reloaded.
runs=$(cat /run/consul.runs 2>/dev/null) || runs=

look=0
while [ "$look" -lt "$1" ]; do
  [ "$look" -eq 0 ] || sleep "$2"
  look=$((look + 1))
  leader=$(json status/leader)
  if [ "$leader" = null ]; then
    unit=$(systemctl show --property SubState consul.service 2>/dev/null) || unit=
    printf '{"leader":null,"health":null,"raft":null,"members":null,"self":null,"runs":"%s","minQuorum":0,"unit":"%s"}\n' \
      "${runs% *}" "${unit#SubState=}"
    exit 0
  fi
  min_quorum=$(json operator/autopilot/configuration | sed -n 's/.*"MinQuorum":\([0-9]*\).*/\1/p')
  # The own state comes last: what the leader had before must be in it.
  printf '{"leader":%s,"health":%s,"raft":%s,"members":[%s],"self":{%s},"runs":"%s","minQuorum":%s}\n' "$leader" \
    "$(json operator/autopilot/health)" "$(json operator/raft/configuration)" "$(servers)" \
    "$(json agent/self | grep -o '"\(state\|applied_index\)":"[^"]*"' | paste -sd, -)" "${runs% *}" "${min_quorum:-0}"
done
