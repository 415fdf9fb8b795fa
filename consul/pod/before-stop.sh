# Before a server stops for good reasons: before-stop.sh ADDRESS. Waits until the cluster can do without it, then hands
# the leadership over, so that writes go on. After BEFORE_STOP_DEADLINE seconds it says so and lets it stop all the same.
# A server beyond the number that roll.sh has told autopilot leaves for good: raft shrinks with it, and agents turn to
# the others at once. Kubernetes takes those, and one more for its new revision, all at the same time; here they go one
# after another, the last first.
deadline=$(($(date +%s) + ${BEFORE_STOP_DEADLINE:-60}))
API_SECONDS=3
self="\"$1:8300\""
late() { [ "$(date +%s)" -ge "$deadline" ]; }
tolerant() { api GET operator/autopilot/health | grep -q '"FailureTolerance":[1-9]'; }
other_leads() {
  leader=$(api GET status/leader) || return 1
  [ -n "${leader#\"\"}" ] && [ "$leader" != "$self" ]
}

# A server that takes no part is not missed by anybody.
case $(api GET status/peers 2>/dev/null || :) in *"$self"*) ;; *) exit 0 ;; esac
wanted=$(api GET operator/autopilot/configuration | sed -nE 's/.*"MinQuorum":([1-9][0-9]*).*/\1/p')
ordinal=${POD_NAME##*-}
too_many() { [ -n "$wanted" ] && [ "$1" -ge "$wanted" ]; }
# Prints those of raft that are too many and go before this one.
others_first() {
  api GET operator/raft/configuration | grep -o "\"Node\":\"${POD_NAME%-*}-[0-9]*" | sed 's/.*-//' |
    while read -r other; do ! too_many "$other" || [ "$other" -le "$ordinal" ] || echo "$other"; done
}
until [ -z "$(others_first)" ] || late; do sleep 0.2; done
until too_many "$ordinal" || tolerant; do
  if late; then
    echo "before-stop: this server stops although another one is missing" >&2
    break
  fi
  sleep 1
done
until other_leads; do
  if late; then
    echo "before-stop: this server stops although no other one leads" >&2
    exit 1
  fi
  api POST operator/raft/transfer-leader >/dev/null || :
  sleep 0.2
done
if too_many "$ordinal"; then
  # Consul may end before it has answered.
  API_SECONDS=60 api PUT agent/leave >/dev/null 2>&1 || :
fi
