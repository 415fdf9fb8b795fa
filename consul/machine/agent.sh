# Brings the machine to what stands in $stage. This is the end of an agent's user data: it runs at each boot, and on a
# running machine whenever somebody runs the text as root. Variables from above: consul (the binary), stage, and lib, etc
# and dns (names).
say() { echo "consul-agent: $*"; }
fail() {
  say "$*" >&2
  exit 1
}

[ ! -e /etc/consul.management-token ] || fail "this machine is a Consul server; nothing was changed"
# What Consul refuses does not take the place of what Consul runs with. Before its first start there is no Consul to ask.
if [ -x "$consul" ] && ! problem=$("$consul" validate "$stage$etc" 2>&1); then
  fail "Consul refuses the new configuration, and the one before stays: $(printf %s "$problem" | tail -n 3 | tr '\n' ' ')"
fi

changed=
while read -r path mode group; do
  cmp -s "$stage$path" "$path" || changed="$changed $path"
  # Others read what is in there: the resolver runs as its own user.
  [ -d "${path%/*}" ] || install -d -m 0755 "${path%/*}"
  install -m "$mode" -o root -g "$group" "$stage$path" "$path.new"
  mv -f "$path.new" "$path"
done <"$stage/list"
# What an earlier user data wrote and this one does not goes last.
for path in "$etc"/* "$dns"; do
  if [ ! -f "$path" ] || grep -qF "$path " "$stage/list"; then continue; fi
  rm -f "$path"
  changed="$changed $path"
done
systemctl daemon-reload
systemctl enable --quiet consul.service
case $changed in *" $dns"*) systemctl try-restart --no-block systemd-resolved.service ;; esac

if ! systemctl is-active --quiet consul.service; then
  # At a boot this runs before the network is there, and the unit waits.
  systemctl start --no-block consul.service
  say "starts"
elif [ -n "$changed" ]; then
  systemctl restart consul.service || fail "consul.service does not start: $(journalctl -u consul.service -n 3 -o cat | tr '\n' ' ')"
  say "restarted with${changed}"
else
  say "unchanged"
fi
