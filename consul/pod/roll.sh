# Before servers in the cluster are changed: roll.sh SECONDS SKIP KEY-FILE URL...
# Waits, for so many seconds, until every server is a healthy voter and one of them can be spared. SKIP names servers (with
# commas, or "none") that are not asked for, since this change is to repair them. Then tells autopilot how many servers
# there are to be, so that a server beyond that number leaves for good when it stops (before-stop.sh), and has every member
# know and use the gossip keys in KEY-FILE: a server that starts with others would stay alone.
# CERTIFICATES_FROM says from when on the certificates that servers are to have are valid, in seconds since 1970: with one
# that is not valid yet, a server that starts stays alone.
# SERVERS_EXIST is set once there may be a StatefulSet. Without it nothing has to be spared; with it, servers that do not
# answer are a reason to stop: they may run all the same, where only the way to them is closed.
API_SECONDS=3
deadline=$(($(date +%s) + $1))
skip=$2 key_file=$3
shift 3

# ask PATH URL...: the first server that knows a leader is asked from then on; without one, the first that answers. A server
# that the network has cut off answers too.
ask() {
  path=$1
  shift
  for CONSUL_HTTP_ADDR in "$@"; do
    case $(api GET status/leader 2>/dev/null) in *:8300*) ;; *) continue ;; esac
    answer=$(api GET "$path" 2>&1) && return 0
  done
  for CONSUL_HTTP_ADDR in "$@"; do answer=$(api GET "$path" 2>&1) && return 0; done
  return 1
}

# Releases before this one did not set SERVERS_EXIST. Their pods have names as soon as they have addresses, ready or not;
# curl says (6) of a name that there is not.
first_start() {
  [ -z "${SERVERS_EXIST:-}" ] || return 1
  for CONSUL_HTTP_ADDR in "$@"; do
    ! answer=$(api GET status/leader 2>&1) || return 1
    case $answer in *'curl: (6)'*) ;; *) return 1 ;; esac
  done
}

utc() { date -u -d "@$1" +%Y-%m-%dT%H:%M:%SZ; }
skipped() { case ",$skip," in *",$1,"*) ;; *) return 1 ;; esac }
all_skipped() {
  for url in "$@"; do
    host=${url#*//}
    skipped "${host%%.*}" || return 1
  done
}

# What speaks against it, in words; nothing where all is well.
doubts() {
  ask operator/autopilot/health "$@" || { echo "no server answers ($answer)" && return 0; }
  health=$answer
  case $health in *'"Servers":['*) ;; *) echo "no leader knows of them ($health)" && return 0 ;; esac
  # A leader that was started after a server had been lost does not know its name.
  nameless=0
  for name in $(echo "$skip" | tr , ' '); do
    case $name,$health in none,* | *"\"Name\":\"$name\""*) ;; *) nameless=$((nameless + 1)) ;; esac
  done
  printf '%s\n' "$health" | sed 's/{"ID"/\n{"ID"/g' |
    sed -nE '/"Healthy":false|"Voter":false/s/.*"Name":"([^"]*)".*/\1/p' |
    while read -r name; do
      if [ -z "$name" ] && [ "$nameless" -gt 0 ]; then
        nameless=$((nameless - 1))
      elif ! skipped "$name"; then
        echo "${name:-a server that the leader knows no name of} is not a healthy voter"
      fi
    done
  case $health in
    *'"FailureTolerance":0'*) [ "$skip" != none ] || echo "none can be spared" ;;
  esac
}

until_well() {
  passes=0
  until [ "$passes" -ge 3 ]; do
    problem=$(doubts "$@")
    if [ -z "$problem" ]; then
      passes=$((passes + 1))
    else
      passes=0
      if [ "$(date +%s)" -ge "$deadline" ]; then
        echo "roll: the servers were NOT changed: $(echo "$problem" | paste -sd ';' -). Put that right and run \`pulumi up\` again;" \
          "if the change is to repair servers, or none of them has ever run, name them in consul:gate.skip" >&2
        exit 1
      fi
    fi
    sleep 2
  done
  echo "roll: all servers are healthy voters"
}

prepare() {
  ask status/leader "$@" && configuration=$(demand GET operator/autopilot/configuration) || return 1
  settings=$(mktemp)
  # Consul reads this from its own configuration at its very first start and never again.
  printf '%s' "$configuration" | sed "s/\"MinQuorum\":[0-9]*/\"MinQuorum\":$#/" >"$settings"
  demand PUT operator/autopilot/configuration "$settings" >/dev/null || return 1
  sh "$(dirname "$0")/keyring.sh" use "$key_file"
}

# A few minutes are waited for. What a node's clock says is what its pods go by.
early=$((${CERTIFICATES_FROM:-0} - $(date +%s)))
if [ "$early" -gt 300 ]; then
  echo "roll: the servers were NOT changed: their certificates were made by a clock that is ahead: they are valid from" \
    "$(utc "$CERTIFICATES_FROM") on, and by the clock of the node here it is $(utc "$(date +%s)"). Mend the clock that is" \
    "wrong; where it is the one where \`pulumi up\` runs, make certificates anew with another number of" \
    "consul:certificates.serverDays (docs/operations.md)" >&2
  exit 1
fi
[ "$early" -le 0 ] || sleep "$early"

if first_start "$@" && sleep 2 && first_start "$@"; then
  echo "roll: there are no servers yet"
elif all_skipped "$@"; then
  echo "roll: consul:gate.skip names every server: they are changed whatever they say"
  prepare "$@" || echo "roll: they have not been told their number and the gossip key: $answer" >&2
else
  until_well "$@"
  prepare "$@"
fi
