# Before a server stops for good reasons: before-stop.sh ADDRESS. Waits until the cluster can do without it, then hands
# the leadership over, so that writes go on. After BEFORE_STOP_DEADLINE seconds it says so and lets it stop all the same.
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
until tolerant; do
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
