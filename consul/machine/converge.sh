# Brings the machine to what stands in $stage. This is the end of the user data: it runs at each boot, and on a running
# machine with CONSUL_APPLY (apply.sh). Variables from above: config and start (digests), consul (the binary), units,
# stage, and lib, etc and acl (directories).
say() { echo "consul-converge: $*"; }
fail() {
  say "$*" >&2
  exit 1
}

# What Consul refuses does not take the place of what Consul runs with. Before its first start there is no Consul to ask.
if [ -x "$consul" ] && ! problem=$("$consul" validate "$stage$etc" 2>&1); then
  fail "Consul refuses the new configuration, and the one before stays: $(printf %s "$problem" | tail -n 3 | tr '\n' ' ')"
fi

# consul.service notes at its start what it starts with.
runs=$(cat /run/consul.runs 2>/dev/null) || runs=
must_restart() { [ "${runs#* }" != "$start" ] || ! systemctl is-active --quiet consul.service; }
# Where Consul is not installed and does not run there is nothing that could go down: as after a first boot whose mirror
# was wrong.
absent=
if [ ! -x "$consul" ] && ! systemctl is-active --quiet consul.service; then absent=yes; fi
if [ "${CONSUL_APPLY:-}" = reload ] && [ -z "$absent" ] && must_restart; then
  echo "restart needed"
  exit 0
fi

changed=
while read -r path mode group; do
  cmp -s "$stage$path" "$path" || changed="$changed $path"
  install -m "$mode" -o root -g "$group" "$stage$path" "$path.new"
  mv -f "$path.new" "$path"
done <"$stage/list"
# What an earlier user data wrote and this one does not goes last.
for path in "$etc"/* "$acl"/* "$lib"/* /etc/systemd/system/consul-snapshot.*; do
  if [ ! -f "$path" ] || [ "$path" = "$lib/wanted" ] || grep -qF "$path " "$stage/list"; then continue; fi
  case $path in /etc/systemd/*) systemctl disable --quiet --now --no-block "${path##*/}" 2>/dev/null || : ;; esac
  rm -f "$path"
  changed="$changed $path"
done
echo "$config $start" >"$lib/wanted"
chmod 0644 "$lib/wanted"
systemctl daemon-reload
systemctl enable --quiet $units

if [ -z "${CONSUL_APPLY:-}" ]; then
  [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ] ||
    say "control groups v1: systemd leaves out IPAddressDeny, and Consul reaches the metadata service (docs/security.md)"
  # Units wait for the disk and the network; this runs before either.
  systemctl start --no-block $units
  exit 0
fi

if [ -n "$absent" ]; then
  # The unit installs Consul from the mirror that is named now, and waits for the other servers.
  systemctl restart --no-block consul.service
  echo restarted
  exit 0
fi

# ask METHOD PATH: prints the body, and the status in a line of its own.
ask() {
  printf 'header = "X-Consul-Token: %s"\n' "$(cat /etc/consul.management-token)" |
    curl -K - -sS --max-time 30 -w '\n%{http_code}' -X "$1" "http://127.0.0.1:8500/v1/$2"
}
touches() { case $changed in *" $1"*) ;; *) return 1 ;; esac }

if must_restart; then
  systemctl restart consul.service || fail "consul.service does not start: $(journalctl -u consul.service -n 3 -o cat | tr '\n' ' ')"
  result=restarted
elif [ "$runs" != "$config $start" ]; then
  # Not SIGHUP: that returns before Consul has read anything, and says nothing of what it refuses.
  answer=$(ask PUT agent/reload) || fail "Consul does not answer: $answer"
  case $answer in *200) ;; *) fail "Consul refuses to reload: $(printf %s "$answer" | tr '\n' ' ')" ;; esac
  cp "$lib/wanted" /run/consul.runs
  result=reloaded
else
  result=unchanged
fi

# A reload is good where there is no leader, too: new certificates may be what brings one back.
works() {
  [ "$(cat /run/consul.runs 2>/dev/null)" = "$config $start" ] || return 1
  [ "$result" != restarted ] || ask GET status/leader 2>/dev/null | grep -q :8300
}
seconds=0
until works; do
  seconds=$((seconds + 1))
  [ "$seconds" -lt 60 ] || fail "Consul runs but has found no leader for a minute: $(journalctl -u consul.service -n 3 -o cat | tr '\n' ' ')"
  sleep 1
done
# Noted once they are in place, so that a change that ended before that is made up for.
policies=$(cat "$acl"/* "$lib/acl.sh" | sha256sum)
if [ "$(cat /run/consul.acl 2>/dev/null)" != "$policies" ]; then
  timeout 90 systemctl restart consul-acl.service || fail "policies and tokens are not in place: journalctl -u consul-acl"
  echo "$policies" >/run/consul.acl
fi
for unit in $units; do
  case $unit in *.timer) ;; *) continue ;; esac
  if touches "/etc/systemd/system/$unit" || ! systemctl is-active --quiet "$unit"; then systemctl restart "$unit"; fi
done
echo "$result"
