# Before servers in the cluster are changed: roll.sh SECONDS SKIP KEY-FILE URL...
# Waits until every server is a healthy voter and one of them can be spared, for so many seconds; those named in SKIP
# (with commas, or "none") are not asked for: this change is to repair them. Then tells autopilot how many servers there
# are to be, so that those beyond leave for good when they stop (before-stop.sh), and has every member know and use the
# gossip keys in KEY-FILE: a server that starts with others would stay alone.
# Where no server answers at all, as before the first start, there is nothing to be careful with.
API_SECONDS=3
deadline=$(($(date +%s) + $1))
skip=$2 key_file=$3
shift 3

# ask PATH URL...: the first server that answers is the one that is asked from then on.
ask() {
  path=$1
  shift
  for CONSUL_HTTP_ADDR in "$@"; do answer=$(api GET "$path" 2>&1) && return 0; done
  return 1
}

# What speaks against it, in words; nothing where all is well.
doubts() {
  ask operator/autopilot/health "$@" || { echo "no server answers: $answer" && return 0; }
  health=$answer
  case $health in *'"Servers":['*) ;; *) echo "no leader knows of them: $health" && return 0 ;; esac
  printf '%s\n' "$health" | sed 's/{"ID"/\n{"ID"/g' |
    sed -nE '/"Healthy":false|"Voter":false/s/.*"Name":"([^"]*)".*/\1/p' |
    while read -r name; do
      case ",$skip," in *",$name,"*) ;; *) echo "$name is not a healthy voter" ;; esac
    done
  case $health in
    *'"FailureTolerance":0'*) [ "$skip" != none ] || echo "none can be spared" ;;
  esac
}

if ! ask status/leader "$@" && sleep 2 && ! ask status/leader "$@"; then
  echo "roll: no server answers, nothing to be careful with"
  exit 0
fi
passes=0
until [ "$passes" -ge 3 ]; do
  problem=$(doubts "$@")
  if [ -z "$problem" ]; then
    passes=$((passes + 1))
  else
    passes=0
    if [ "$(date +%s)" -ge "$deadline" ]; then
      echo "roll: the servers were NOT changed: $(echo "$problem" | paste -sd ';' -). Put that right and run \`pulumi up\` again;" \
        "if the change is to repair a server, name it in consul:gate.skip" >&2
      exit 1
    fi
  fi
  sleep 2
done
echo "roll: all servers are healthy voters"
ask operator/autopilot/configuration "$@"
settings=$(mktemp)
# Consul reads this from its own configuration at its very first start and never again.
printf '%s' "$answer" | sed "s/\"MinQuorum\":[0-9]*/\"MinQuorum\":$#/" >"$settings"
api PUT operator/autopilot/configuration "$settings" >/dev/null

exec sh "$(dirname "$0")/keyring.sh" use "$key_file"
