# Tells autopilot how many servers there are, if it thinks otherwise: autopilot.sh SERVERS. Consul reads min_quorum from
# its configuration at the very first start of a cluster and never again (docs/facts/consul.md).
settings=$(api GET operator/autopilot/configuration)
case $settings in
  *"\"MinQuorum\":$1,"*) exit 0 ;;
  *'"MinQuorum":'*) ;;
  *) echo "autopilot does not answer: $settings" >&2 && exit 1 ;;
esac
body=$(mktemp)
trap 'rm -f "$body"' EXIT
printf '%s' "$settings" | sed "s/\"MinQuorum\":[0-9]*/\"MinQuorum\":$1/" >"$body"
answer=$(api PUT operator/autopilot/configuration "$body")
[ "$answer" = true ] || { echo "autopilot refuses: $answer" >&2 && exit 1; }
echo "autopilot counts $1 servers now"
