# Stands before each of the scripts for running clusters (consul/day-two.ts). They need CONSUL_HTTP_ADDR and
# CONSUL_HTTP_TOKEN_FILE (a file with the management token); CONSUL_CACERT for https.
set -eu
umask 077

# api METHOD PATH [FILE]: the token goes in by a file descriptor, so that it is in no argument list. Fails where there
# is no answer at all; what the answer is worth is for the caller to see.
api() {
  answer=$(printf 'header = "X-Consul-Token: %s"\n' "$(cat "$CONSUL_HTTP_TOKEN_FILE")" |
    curl -K - -sS --max-time "${API_SECONDS:-10}" ${CONSUL_CACERT:+--cacert "$CONSUL_CACERT"} \
      -X "$1" ${3:+--data-binary "@$3"} "$CONSUL_HTTP_ADDR/v1/$2") || return 1
  printf '%s' "$answer" | tr -d '\n'
}
