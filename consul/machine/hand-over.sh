# Hands the leadership over to the server with a raft id: hand-over.sh ID.
answer=$(api POST "operator/raft/transfer-leader?id=$1")
case $answer in
  *'"Success":true'*) echo "leadership handed over to $1" ;;
  *) echo "the leadership was not handed over: $answer" >&2 && exit 1 ;;
esac
