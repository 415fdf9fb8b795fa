# After all else: takes away the agents' tokens and the gossip keys that no node needs any more: retire.sh SECONDS MARK
# SHA256 DIRECTORY. SECONDS: how long to wait for agents; MARK: the pattern of what up-to-date agents carry (behind.sh);
# SHA256: of the gossip keys to keep, with commas; DIRECTORY: for acl.sh, which takes ACL_OWNER as well.
here=$(dirname "$0")
deadline=$(($(date +%s) + $1))
late() {
  nodes=$(sh "$here/behind.sh" "$1") || { echo "unknown, the catalog cannot be read" && return 0; }
  printf '%s\n' "$nodes" | grep -v '^consul-server-[0-9]*$' || :
}
# An agent that has just been restarted takes a few seconds to write its own entry in the catalog.
until late=$(late "$2") && [ -z "$late" ]; do
  if [ "$(date +%s)" -ge "$deadline" ]; then
    echo "retire: with an earlier gossip key, token or authority: $(echo "$late" | paste -sd ',' -). What they need is kept:" \
      "update the stack that has them, then run \`pulumi up\` here again" >&2
    exit 1
  fi
  sleep 2
done
# A member that does not answer keeps its old key; that must not keep an old token valid.
sh "$here/acl.sh" "$4"
exec sh "$here/keyring.sh" only "$3"
