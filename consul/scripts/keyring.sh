# Gossip keys of a running cluster. Each phase is checked on every member; what is done already is left alone.
#   keyring.sh use FILE           makes all keys in FILE known to all members, then makes all of them encrypt with the
#                                 first. FILE is a keyring as nodes start with it: a JSON array
#   keyring.sh only SHA256[,...]  removes every other key, once all members encrypt with the one that has the first SHA-256
# With GOSSIP_PATTERN, "use" does not switch as long as the mark of a node does not match it (behind.sh, in the same
# directory): such a node, started anew, would understand nobody, or nobody would understand it.
# No key is ever in an argument list: the shell itself compares and prints them.
# Every answer is the members' own, gathered by gossip: with 1,000 of them that takes 13 s (docs/facts/consul.md).
# A server that says nothing at all is given up long before: another server can be asked. So is a server that knows no
# leader: where the network cut it off, its members are itself alone.
patience=$(($(date +%s) + ${KEYRING_PATIENCE:-30}))
API_SECONDS=15
problem="Consul does not answer"
until leader=$(api GET status/leader 2>/dev/null) && [ "${leader#*:}" != "$leader" ]; do
  [ -z "$leader" ] || problem="this server sees no leader"
  [ "$(date +%s)" -lt "$patience" ] || { echo "keyring: $problem" >&2 && exit 1; }
  sleep 1
done
API_SECONDS=60
deadline=$(($(date +%s) + ${KEYRING_DEADLINE:-300}))
body=$(mktemp)
trap 'rm -f "$body"' EXIT

# Fails where Consul has not heard of every member: such an answer names no keys, and a key would pass for removed.
list() {
  keyring=$(demand GET operator/keyring 2>&1) || {
    problem=$keyring
    return 1
  }
  members=${keyring##*\"NumNodes\":}
  members=${members%%[!0-9]*}
  keys=${keyring##*\"Keys\":\{}
  keys=${keys%%\}*}
  primary=${keyring##*\"PrimaryKeys\":\{}
  primary=${primary%%\}*}
}
digest() { printf '%s' "$1" | sha256sum | cut -d ' ' -f 1; }

# change METHOD KEY: what the answer says is checked by listing again.
change() {
  printf '{"Key":"%s"}' "$2" >"$body"
  problem=$(api "$1" operator/keyring "$body" 2>&1) || :
}

# until_all WHAT METHOD: on every member; members that come and go meanwhile are what the second try is for.
until_all() {
  until list && "$1"; do
    if [ "$(date +%s)" -ge "$deadline" ]; then
      echo "keyring: not every one of ${members:-the} members: $1 ${problem:-}" >&2
      exit 1
    fi
    [ "$2" = GET ] || change "$2" "$key"
    list && "$1" && return
    sleep 1
  done
}
installed() { case ",$keys," in *",\"$key\":$members,"*) ;; *) return 1 ;; esac }
used() { [ "$primary" = "\"$key\":$members" ]; }
removed() { case ",$keys," in *",\"$key\":"*) return 1 ;; esac }

# Prints the installed keys, one a line.
installed_keys() { printf '%s\n' "$keys" | tr , '\n' | sed 's/^"\([^"]*\)".*/\1/'; }

# Whether members encrypt with another key than the first, or know one that is not in FILE.
switches() { ! used || [ -n "$(installed_keys | grep -vxF "$wanted")" ]; }

# Prints the agents that do not start with the keys for this yet. Servers have no mark.
behind() {
  nodes=$(sh "$(dirname "$0")/behind.sh" "$GOSSIP_PATTERN") || return 1
  printf '%s\n' "$nodes" | grep -v '^consul-server-[0-9]*$' | paste -sd , -
}

case $1 in
  use)
    wanted=$(tr -d '[]" \n' <"$2" | tr , '\n')
    first=${wanted%%
*}
    for key in $wanted; do until_all installed POST; done
    key=$first
    if [ -n "${GOSSIP_PATTERN:-}" ] && switches; then
      late=$(behind)
      if [ -n "$late" ]; then
        echo "keyring: nothing is switched, these nodes do not start with the gossip keys for this step yet: $late." \
          "Run \`pulumi up\` for the stack that has them, then here again" >&2
        exit 1
      fi
    fi
    until_all used PUT
    echo "keyring: all $members members encrypt with the wanted key"
    ;;
  only)
    kept=$2 first=${2%%,*}
    all_use_first() { [ "${primary##*:}" = "$members" ] && now=${primary#\"} && [ "$(digest "${now%%\"*}")" = "$first" ]; }
    until_all all_use_first GET
    for key in $(installed_keys); do
      case ",$kept," in *",$(digest "$key"),"*) continue ;; esac
      until_all removed DELETE
      echo "keyring: an old key is removed from all $members members"
    done
    ;;
esac
