#!/bin/sh
# Succeeds while this server takes part: ready.sh ADDRESS. By its own account it is in the raft configuration under the
# address it has now, and it sees a leader. The status codes alone say neither: without a leader the answer is 200 and
# an empty string, and a pod that came back under another address is a stranger to the others for up to a minute.
# Needs CONSUL_HTTP_ADDR.
status() { curl -sf --max-time 2 "$CONSUL_HTTP_ADDR/v1/status/$1"; }
status peers | grep -qF "\"$1:8300\"" && status leader | grep -q :
