# Makes a host's directory ready for the agent: agent-data.sh DIRECTORY OWNER, with NODE_NAME.
set -eu
# An agent whose data is lost makes up another id, and the servers keep the node's name for the old one as long as they
# take it for alive: a restart within seconds would lock it out for good. So the id comes from the name
# (agentNodeId in consul/config.ts); one that is there already, from before this program, is kept.
[ -s "$1/node-id" ] || printf %s "$NODE_NAME" | sha256sum |
  sed 's/^\(.\{8\}\)\(.\{4\}\)\(.\{4\}\)\(.\{4\}\)\(.\{12\}\).*/\1-\2-\3-\4-\5/' >"$1/node-id"
# A directory that the kubelet makes on the host belongs to root; fsGroup does not reach it.
chown -R "$2" "$1"
