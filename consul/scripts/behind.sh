# Prints the nodes whose mark (node metadata "trust") does not match a pattern for grep -E, 25 at most: behind.sh PATTERN.
# The mark says which gossip keys, token and authorities a node was started with (consul/config.ts). Nodes that are there
# in the catalog alone, an external service's or that of HashiCorp's catalog sync, have none and need none.
nodes=$(api GET catalog/nodes)
case $nodes in
  '[{'*) ;;
  *) echo "the catalog cannot be read: $nodes" >&2 && exit 1 ;;
esac
printf '%s\n' "$nodes" | sed 's/},{"ID"/}\n{"ID"/g' | grep -vE '"external-(node":"true|source":"kubernetes)"' |
  grep -vE "\"trust\":\"$1\"" | sed 's/.*"Node":"\([^"]*\)".*/\1/' | head -n 25
