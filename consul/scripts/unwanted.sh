# Prints what nodes may still have and none is to have any more, a word for each: unwanted.sh OWNER ACCESSOR SHA256[,...]
#   key     a gossip key that members know, with another SHA-256 than these
#   token   a token with the owner's mark (consul/acl.ts), other than the one with this accessor id
# What cannot be found out is left out, so that a node that does not answer stops nothing: the next `up` asks again.
# Every answer of the keyring is the members' own, gathered by gossip: with 1,000 of them that takes 13 s.
API_SECONDS=60
keyring=$(demand GET operator/keyring 2>/dev/null) || keyring=
case $keyring in
  *'"Keys":{'*)
    keys=${keyring##*\"Keys\":\{}
    for key in $(printf '%s\n' "${keys%%\}*}" | tr , '\n' | sed 's/^"\([^"]*\)".*/\1/'); do
      digest=$(printf '%s' "$key" | sha256sum | cut -d ' ' -f 1)
      case ",$3," in *",$digest,"*) ;; *) echo key ;; esac
    done
    ;;
esac
tokens=$(demand GET acl/tokens 2>/dev/null) || tokens=
printf '%s\n' "$tokens" | grep -o "\"AccessorID\":\"[^\"]*\",\"SecretID\":\"[^\"]*\",\"Description\":\"[^\"]*\[$1\]\"" |
  grep -vF "\"AccessorID\":\"$2\"" | sed 's/.*/token/' || :
