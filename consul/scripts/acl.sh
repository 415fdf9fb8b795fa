#!/bin/sh
# Puts policies and tokens in place: acl.sh DIRECTORY, holding policy.<name>.json and token.<accessor>.json.
# Needs CONSUL_HTTP_ADDR (one address or several: the first that knows a leader is used) and CONSUL_HTTP_TOKEN_FILE (a
# file with the management token); CONSUL_CACERT for https. With ACL_PREFIX, policies whose name and tokens whose
# description begins with it are revoked where DIRECTORY does not have them.
# Runs as often as you like: what is there is brought to what the files say. Gives up after ACL_DEADLINE seconds.
set -eu
dir=$1
deadline=$(($(date +%s) + ${ACL_DEADLINE:-600}))

# api METHOD PATH [FILE]: the token goes in by a file descriptor, so that it is in no argument list.
api() {
  answer=$(printf 'header = "X-Consul-Token: %s"\n' "$(cat "$CONSUL_HTTP_TOKEN_FILE")" |
    curl -K - -sS --max-time 10 ${CONSUL_CACERT:+--cacert "$CONSUL_CACERT"} -w '\n%{http_code}' \
      -X "$1" ${3:+--data-binary "@$3"} "$address/v1/$2") || return 1
  case $answer in
    *200) printf '%s\n' "${answer%???}" ;;
    *) echo "$1 $2 ${3:+"$(basename "$3")"}: $answer" | tr '\n' ' ' >&2 && return 1 ;;
  esac
}

put_policy() {
  name=$(basename "$1" .json)
  name=${name#policy.}
  id=$(api GET "acl/policy/name/$name" 2>/dev/null | tr -d '\n' | sed -n 's/.*"ID": *"\([^"]*\)".*/\1/p') || id=
  api PUT "acl/policy${id:+/$id}" "$1" >/dev/null
}

put_token() {
  accessor=$(basename "$1" .json)
  accessor=${accessor#token.}
  if api GET "acl/token/$accessor" >/dev/null 2>&1; then
    api PUT "acl/token/$accessor" "$1" >/dev/null
  else
    api PUT "acl/token" "$1" >/dev/null
  fi
}

# put KIND: the files of one kind.
put() {
  for file in "$dir/$1".*.json; do
    [ -e "$file" ] || continue
    "put_$1" "$file" || return 1
  done
}

# revoke KIND PATH ID-FIELD NAME-FIELD: what begins with ACL_PREFIX and is not in DIRECTORY. A quote inside a value is written \", so
# these patterns match nothing but the fields themselves.
revoke() {
  list=$(api GET "$2") || return 1
  for entry in $(printf '%s' "$list" | tr -d '\n' | sed "s/{\"$3\":/\n&/g" |
    sed -n "s/^{\"$3\":\"\([^\"]*\)\".*\"$4\":\"\($ACL_PREFIX[A-Za-z0-9-]*\)\".*/\1=\2/p"); do
    id=${entry%%=*} name=${entry#*=}
    case $1 in token) file=token.$id.json ;; *) file=policy.$name.json ;; esac
    [ -e "$dir/$file" ] && continue
    api DELETE "acl/$1/$id" >/dev/null || return 1
    echo "consul-acl: revoked $1 $name ($id)" >&3
  done
}

apply() {
  for address in $CONSUL_HTTP_ADDR; do api GET status/leader | grep -q : && break; done || return 1
  put policy && put token || return 1
  [ -z "${ACL_PREFIX:-}" ] || { revoke token acl/tokens AccessorID Description && revoke policy acl/policies ID Name; }
}

# A cluster without a leader, a token that a follower has not heard of yet, another server doing the same: all pass.
exec 3>&1
until problem=$(apply 2>&1); do
  if [ "$(date +%s)" -ge "$deadline" ]; then
    echo "consul-acl: policies and tokens are NOT in place, last problem: ${problem:-no leader yet}" >&2
    exit 1
  fi
  sleep 1
done
echo "consul-acl: policies and tokens are in place"
