# Gossip keys of a running cluster. Each phase is checked on every member; what is done already is left alone.
#   keyring.sh use FILE     installs the key in FILE on all members, then makes all of them encrypt with it
#   keyring.sh only SHA256  removes every other key, once all members encrypt with the one that has this SHA-256
# No key is ever in an argument list: the shell itself compares and prints them.
# Every answer is the members' own, gathered by gossip: with 1,000 of them that takes 13 s (docs/facts/consul.md).
API_SECONDS=60
deadline=$(($(date +%s) + ${KEYRING_DEADLINE:-300}))
body=$(mktemp)
trap 'rm -f "$body"' EXIT

list() {
  keyring=$(api GET operator/keyring)
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

case $1 in
  use)
    key=$(cat "$2")
    until_all installed POST
    until_all used PUT
    echo "keyring: all $members members encrypt with the wanted key"
    ;;
  only)
    wanted=$2
    all_use_wanted() { [ "${primary##*:}" = "$members" ] && now=${primary#\"} && [ "$(digest "${now%%\"*}")" = "$wanted" ]; }
    until_all all_use_wanted GET
    for entry in $(printf '%s' "$keys" | tr , ' '); do
      key=${entry#\"}
      key=${key%%\"*}
      [ "$(digest "$key")" != "$wanted" ] || continue
      until_all removed DELETE
      echo "keyring: an old key is removed from all $members members"
    done
    ;;
esac
