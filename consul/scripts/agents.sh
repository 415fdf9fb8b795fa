# Prints what this server knows of the agents, a word and its value in each line: agents.sh VERSION. How many members are
# agents, which of them have failed, and which run another version, 25 of each at most (operate/answers.ts reads this).
members=$(api GET agent/members)
case $members in
  '[{'*) ;;
  *) echo "the members cannot be read: $members" >&2 && exit 1 ;;
esac
# 1 is alive, 3 has left.
printf '%s\n' "$members" | sed 's/},{"Name"/}\n{"Name"/g' | grep '"role":"node"' |
  sed 's/.*{"Name":"\([^"]*\)".*"build":"\([^:"+]*\).*"Status":\([0-9]*\).*/\3 \2 \1/' |
  awk -v version="$1" '
    $1 == 3 { next }
    { total++ }
    $1 != 1 { if (failed++ < 25) print "failed", $3; next }
    $2 != version { if (other++ < 25) print "version", $3, $2 }
    END { print "members", total + 0 }'
