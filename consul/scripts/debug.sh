# Prints a part of what there is to know of a server, compressed, in base64: debug.sh WHAT BYTES SECRETS...
# WHAT is journal, boot, units, disk, consul, self or metrics. Text that would be longer than so many BYTES loses its
# beginning. What stands in SECRETS, files or directories, is taken out, since the cloud keeps what a command prints for
# weeks. Nothing is written.
what=$1 limit=$2
shift 2
# Who fails says so in the text.
set +e

endpoint() { printf '\n== %s\n%s\n' "$1" "$(api GET "$1" 2>&1)"; }

show() {
  case $what in
    journal) journalctl --no-pager -o short-iso -n 20000 -u 'consul*' ;;
    boot)
      journalctl --no-pager -o short-iso -n 500 -u 'cloud-*'
      tail -n 500 /var/log/cloud-init-output.log
      ;;
    units)
      systemctl --failed --no-pager
      systemctl list-timers --all --no-pager 'consul*'
      systemctl status --no-pager -l -n 0 'consul*'
      ;;
    disk) df -h && uptime && free && for path in /opt/consul /consul/data; do [ ! -d "$path" ] || du -ak "$path"; done ;;
    consul)
      consul version
      for path in status/leader status/peers operator/autopilot/state operator/raft/configuration \
        operator/autopilot/configuration; do endpoint "$path"; done
      ;;
    self) endpoint agent/self ;;
    metrics) endpoint agent/metrics ;;
  esac
}

# Tokens, gossip keys and the lines of private keys, one in each line.
secrets() {
  cat "$CONSUL_HTTP_TOKEN_FILE"
  echo
  [ $# -eq 0 ] || find "$@" -type f -exec cat {} + 2>/dev/null | sed 's/"AccessorID": *"[^"]*"//g' |
    grep -oE '"[0-9a-f-]{36}"|"[A-Za-z0-9+/]{22,}={0,2}"|^[A-Za-z0-9+/]{40,}={0,2}$' | tr -d '"'
}

mark="== what follows is text"
text=$({ secrets "$@" && printf '%s\n' "$mark" && show 2>&1; } | awk -v mark="$mark" '
  !text && $0 == mark { text = 1; next }
  !text { if (length($0) > 15) secret[++count] = $0; next }
  /-----BEGIN [A-Z ]*PRIVATE KEY-----/ { key = 1 }
  key { if (/-----END/) key = 0; print "[secret]"; next }
  {
    for (i = 1; i <= count; i++) while (at = index($0, secret[i]))
      $0 = substr($0, 1, at - 1) "[secret]" substr($0, at + length(secret[i]))
    print
  }')
bytes=$(printf %s "$text" | wc -c)
while packed=$(printf %s "$text" | tail -c "$bytes" | gzip -9 | base64 | tr -d '\n') && [ "${#packed}" -gt "$limit" ]; do
  bytes=$((bytes * 3 / 4))
done
printf '%s\n' "$packed"
