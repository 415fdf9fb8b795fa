#!/bin/sh
# Stands before each of the scripts that ask a running cluster (withApi in consul/scripts.ts). They need CONSUL_HTTP_ADDR
# and CONSUL_HTTP_TOKEN_FILE (a file with the management token); CONSUL_CACERT for https.
set -eu
umask 077

# request METHOD PATH [FILE]: prints the answer in one line, and behind it the status, as in `{"ID":"..."} 200`. Fails where
# no answer comes within API_SECONDS. The token goes in by a file descriptor, so that it is in no argument list.
request() {
  answer=$(printf 'header = "X-Consul-Token: %s"\n' "$(cat "$CONSUL_HTTP_TOKEN_FILE")" |
    curl -K - -sS --max-time "${API_SECONDS:-10}" ${CONSUL_CACERT:+--cacert "$CONSUL_CACERT"} -w ' %{http_code}' \
      -X "$1" ${3:+--data-binary "@$3"} "$CONSUL_HTTP_ADDR/v1/$2") || return 1
  printf '%s' "$answer" | tr -d '\n'
}

# api METHOD PATH [FILE]: prints the answer, whatever its status is; the caller judges what the answer is worth.
api() {
  answer=$(request "$@") || return 1
  printf '%s' "${answer% ???}"
}

# demand METHOD PATH [FILE]: prints the answer where the status is 200; else says what was asked and answered, and fails.
demand() {
  answer=$(request "$@") || return 1
  case $answer in
    *' 200') printf '%s' "${answer% 200}" ;;
    *) echo "$1 $2${3:+ $(basename "$3")}: $answer" >&2 && return 1 ;;
  esac
}
