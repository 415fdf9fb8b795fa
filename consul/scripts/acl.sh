# Puts policies and tokens in place, and revokes those that are not wanted any more: acl.sh DIRECTORY, holding
# policy.<name>.json and token.<accessor>.json, and where Kubernetes' service accounts log in method.<name>.json (an auth
# method) and rule.<name>.json (a binding rule). CONSUL_HTTP_ADDR may be several addresses: the first that knows a leader is
# asked.
#   ACL_OWNER   who keeps what DIRECTORY has (consul/acl.ts). Whatever has this owner's mark at the end of its description
#               and is not in DIRECTORY is revoked. Without an owner nothing is revoked.
#   ACL_FORMER  what the names of this owner's policies began with in earlier releases, which wrote no marks
# Runs as often as you like: what is there is brought to what the files say. A failure keeps nothing else from being done;
# all is tried again until ACL_DEADLINE seconds are over, or nothing is left but what Consul refuses for good, and then
# every failure is told.
dir=$1
addresses=$CONSUL_HTTP_ADDR
owner=${ACL_OWNER:-}
deadline=$(($(date +%s) + ${ACL_DEADLINE:-600}))

# objects LIST: the objects of a JSON list, one a line, whatever their first field is: a token that a login made begins
# with its name. Braces count outside of strings only. Between two quotes is a string, and between two strings is not one;
# a quote behind an odd number of backslashes ends no string.
objects() {
  printf '%s\n' "$1" | awk '
    BEGIN { RS = "\"" }
    string {
      object = object "\"" $0
      match($0, /\\*$/)
      if (RLENGTH % 2 == 0) { object = object "\""; string = 0 }
      next
    }
    {
      for (i = 1; i <= length($0); i++) {
        c = substr($0, i, 1)
        if (c == "{") depth++
        if (depth > 0) object = object c
        if (c == "}" && --depth == 0) { print object; object = "" }
      }
      string = 1
    }'
}
# path KIND: where the API has one of a kind.
path() { case $1 in method) echo acl/auth-method ;; rule) echo acl/binding-rule ;; *) echo "acl/$1" ;; esac }
# stubs KIND: the list of all of a kind, one a line, without secrets. A quote inside a value is written \", so
# the patterns below match nothing but the fields themselves.
stubs() {
  case $1 in policy) list=acl/policies ;; *) list=$(path "$1")s ;; esac
  all=$(demand GET "$list") && all=$(objects "$all") || return 1
  printf '%s\n' "$all" | sed 's/"SecretID":"[^"]*",//g'
}
# field NAME STUB
field() { printf '%s\n' "$2" | sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }
id_of() { case $1 in token) field AccessorID "$2" ;; method) field Name "$2" ;; *) field ID "$2" ;; esac }
# wanted KIND STUB: whether DIRECTORY has it. A rule has no name; its description begins with one.
wanted() {
  case $1 in
    token) name=$(field AccessorID "$2") ;;
    rule) name=$(field Description "$2") name=${name%%,*} ;;
    *) name=$(field Name "$2") ;;
  esac
  [ -e "$dir/$1.$name.json" ]
}

# What DIRECTORY does not have and must stay all the same: the token of a server that takes part in the cluster, and a
# policy of an earlier release for as long as a token has it. What cannot be found out is no reason to revoke.
serves() {
  node=$(field NodeName "$2")
  [ -n "$node" ] || return 1
  raft=$(demand GET operator/raft/configuration) && members=$(demand GET agent/members) &&
    members=$(objects "$members") || return 0
  case $raft in *"\"Node\":\"$node\""*) return 0 ;; esac
  # 1 is alive, 2 is leaving.
  printf '%s\n' "$members" | grep -q "^{\"Name\":\"$node\",.*\"Status\":[12],"
}
# A login's token keeps what it was given when its rule goes: it goes with its policy. logout POLICY
logout() {
  found=$(demand GET "acl/tokens?policy=$(field ID "$1")") && found=$(objects "$found") || return 1
  printf '%s\n' "$found" | grep '"AuthMethod":"' | {
    failed=
    while read -r stub; do
      demand DELETE "acl/token/$(field AccessorID "$stub")" >/dev/null || failed=yes
    done
    [ -z "$failed" ]
  }
}
held() { [ "$(demand GET "acl/tokens?policy=$(field ID "$2")")" != '[]' ]; }

# revoke KIND PATTERN KEEP: what matches and is not in DIRECTORY, unless KEEP says that it must stay.
revoke() {
  found=$(stubs "$1") || return 1
  printf '%s\n' "$found" | grep -e "$2" | {
    failed=
    while read -r stub; do
      if wanted "$1" "$stub" || "$3" "$1" "$stub"; then continue; fi
      description=$(field Description "$stub")
      if [ "$1" = policy ] && ! logout "$stub"; then
        failed=yes
      elif demand DELETE "$(path "$1")/$(id_of "$1" "$stub")" >/dev/null; then
        echo "consul-acl: revoked $1 ${description% \[*} ($(id_of "$1" "$stub"))" >&3
      else
        failed=yes
      fi
    done
    [ -z "$failed" ]
  }
}

put_policy() {
  name=$(basename "$1" .json)
  id=$(demand GET "acl/policy/name/${name#policy.}" 2>/dev/null | sed -n 's/.*"ID":"\([^"]*\)".*/\1/p') || id=
  demand PUT "acl/policy${id:+/$id}" "$1" >/dev/null
}
put_token() {
  accessor=$(basename "$1" .json)
  accessor=${accessor#token.}
  demand GET "acl/token/$accessor" >/dev/null 2>&1 || accessor=
  demand PUT "acl/token${accessor:+/$accessor}" "$1" >/dev/null
}
put_method() {
  name=$(basename "$1" .json)
  name=${name#method.}
  demand GET "acl/auth-method/$name" >/dev/null 2>&1 || name=
  demand PUT "acl/auth-method${name:+/$name}" "$1" >/dev/null
}
put_rule() {
  name=$(basename "$1" .json)
  id=$(stubs rule | grep -F "\"Description\":\"${name#rule.}, " | grep -F "[$owner]\"") || id=
  id=$(field ID "$id")
  demand PUT "acl/binding-rule${id:+/$id}" "$1" >/dev/null
}
# put KIND: the files of one kind.
put() {
  missed=
  for file in "$dir/$1".*.json; do
    [ ! -e "$file" ] || "put_$1" "$file" || missed=yes
  done
  [ -z "$missed" ]
}

# Matches the tokens of this owner as releases without marks made them; nothing where there were none.
case $owner in
  *:agents) former='"Description":"Agents","Policies":\[{"ID":"[^"]*","Name":"agents"}\]' ;;
  *:servers) former='"Description":"Server \([^"]*\)".*"NodeIdentities":\[{"NodeName":"\1"' ;;
  *) former=${ACL_FORMER:+"\"Description\":\"$ACL_FORMER[a-z0-9-]*\""} ;;
esac
# Whether these are this owner's. Other stacks may have named their applications' the same; but each run of those releases
# revoked whatever was named like its own and was not its own, so all that there are belong to one stack: to this one,
# if one that DIRECTORY has is among them.
ours=
former_is_ours() {
  case $owner in *:agents | *:servers) return 0 ;; esac
  found=$(stubs token) || return 1
  printf '%s\n' "$found" | grep -e "$former" | {
    while read -r stub; do ! wanted token "$stub" || return 0; done
    return 1
  }
}

apply() {
  for CONSUL_HTTP_ADDR in $addresses; do api GET status/leader | grep -q : && break; done || return 1
  wrong=
  if [ -n "$owner" ]; then
    mark="\"Description\":\"[^\"]*\[$owner\]\""
    # No new login gets what is taken away, and an auth method takes the tokens with it that it gave.
    revoke rule "$mark" false || wrong=yes
    revoke method "$mark" false || wrong=yes
    revoke token "$mark" serves || wrong=yes
    revoke policy "$mark" false || wrong=yes
  fi
  if [ -n "$former" ] && { [ -n "$ours" ] || former_is_ours; }; then
    # From here on those that are wanted get their new names.
    ours=yes
    revoke token "$former" serves || wrong=yes
  fi
  put policy || wrong=yes
  put token || wrong=yes
  put method || wrong=yes
  put rule || wrong=yes
  if [ -n "${ACL_FORMER:-}" ]; then
    names="\"Name\":\"$ACL_FORMER[a-z0-9-]*\",\"Description\":\"What [a-z0-9-]* may do; kept by Pulumi\""
    revoke policy "$names" held || wrong=yes
  fi
  [ -z "$wrong" ]
}

# Whether Consul has refused something for what it says, and nothing failed but that and what waits for it.
# Consul answers 400 only where it cannot read what it is sent, and 500 to a rule that is no rule.
hopeless() {
  refused=': Failed to parse ACL rules|: Invalid | 400$'
  grep -v already "$problems" | grep -qE "$refused" && ! grep -qvE "$refused|: (No such ACL policy|cannot find auth method)" "$problems"
}

# A cluster without a leader, a token that a follower has not heard of yet, another server doing the same: all pass.
problems=$(mktemp)
trap 'rm -f "$problems"' EXIT
exec 3>&1
until apply 2>"$problems"; do
  if hopeless || [ "$(date +%s)" -ge "$deadline" ]; then
    echo "consul-acl: not all policies and tokens are in place:" >&2
    if [ -s "$problems" ]; then cat "$problems" >&2; else echo "no leader yet" >&2; fi
    exit 1
  fi
  sleep 1
done
echo "consul-acl: policies and tokens are in place"
