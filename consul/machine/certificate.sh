# The certificate of the server on this machine.
#   certificate.sh dates        prints from when on and until when it is valid, and what the clock here says: seconds each
#   certificate.sh renew FILE   puts the certificate and the key that are in FILE, in PEM, in place of those that are there,
#                               and has Consul read them. Nothing is restarted, and the user data stays as it is
etc=/etc/consul.d

# place NAME: standard input becomes the file, with the owner and the mode that it has.
place() {
  cp -p "$etc/$1" "$etc/$1.new"
  cat >"$etc/$1.new"
  mv -f "$etc/$1.new" "$etc/$1"
}

case $1 in
  dates)
    dates=$(openssl x509 -in "$etc/server.pem" -noout -startdate -enddate)
    begin=${dates%%
*}
    echo "$(date -d "${begin#*=}" +%s) $(date -d "${dates##*=}" +%s) $(date +%s)"
    ;;
  renew)
    # User data writes these files too.
    exec 9>/run/consul.lock
    flock -w 300 9
    sed -n '/BEGIN CERTIFICATE/,/END CERTIFICATE/p' "$2" | place server.pem
    sed -n '/BEGIN .*PRIVATE KEY/,/END .*PRIVATE KEY/p' "$2" | place server-key.pem
    # A server that was started without a leader knows no token yet, and refuses this one.
    # One that is stopped reads its certificate when it starts.
    demand PUT agent/reload >/dev/null 2>&1 || systemctl reload consul.service ||
      ! systemctl is-active --quiet consul.service
    ;;
esac
