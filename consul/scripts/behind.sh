# Prints the nodes whose mark (node metadata "trust") does not match a pattern for grep -E, 25 at most: behind.sh PATTERN.
# The mark says which gossip keys, token and authorities a node was started with (consul/config.ts).
nodes=$(api GET catalog/nodes)
case $nodes in
  '[{'*) ;;
  *) echo "the catalog cannot be read: $nodes" >&2 && exit 1 ;;
esac
printf '%s\n' "$nodes" | sed 's/},{"ID"/}\n{"ID"/g' | grep -v '"external-node":"true"' |
  grep -vE "\"trust\":\"$1\"" | sed 's/.*"Node":"\([^"]*\)".*/\1/' | head -n 25
