#!/bin/sh
# Installs one Consul version: install.sh VERSION MIRROR [SHA256]. Does nothing where it is installed already.
# Fetches MIRROR/VERSION/consul_VERSION_linux_ARCH.zip and checks it against SHA256, or the mirror's own SHA256SUMS.
set -eu
version=$1 mirror=${2%/} sha256=${3:-}
bin=${CONSUL_BIN:-/usr/local/bin/consul}

fail() {
  echo "consul-install: $*" >&2
  exit 1
}

case $("$bin" version 2>/dev/null | head -n 1) in "Consul v$version") exit 0 ;; esac

case $(uname -m) in
  x86_64) arch=amd64 ;;
  aarch64) arch=arm64 ;;
  *) fail "no Consul release for a $(uname -m) machine" ;;
esac
zip=consul_${version}_linux_${arch}.zip
url=$mirror/$version
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

fetch() {
  curl -fsSL --connect-timeout 10 --max-time 600 --retry 3 --retry-connrefused --retry-delay 2 -o "$tmp/$2" "$1" 2>"$tmp/error" ||
    fail "cannot fetch $1 ($(tr '\n' ' ' <"$tmp/error")): check consul:downloadMirror, and that this machine reaches it"
}

fetch "$url/$zip" "$zip"
if [ -z "$sha256" ]; then
  fetch "$url/consul_${version}_SHA256SUMS" sums
  sha256=$(awk -v zip="$zip" '$2 == zip { print $1 }' "$tmp/sums")
  [ -n "$sha256" ] || fail "$url/consul_${version}_SHA256SUMS has no line for $zip"
fi
got=$(sha256sum "$tmp/$zip" | cut -d ' ' -f 1)
[ "$got" = "$sha256" ] || fail "wrong checksum of $url/$zip: $got, wanted $sha256; not installed"

# Not every image has unzip; every one with cloud-init has a Python.
if command -v unzip >/dev/null; then
  unzip -q -o "$tmp/$zip" consul -d "$tmp"
else
  python=$(command -v python3 || echo /usr/libexec/platform-python)
  "$python" -m zipfile -e "$tmp/$zip" "$tmp"
fi
install -m 0755 "$tmp/consul" "$bin.new"
mv -f "$bin.new" "$bin"
echo "consul-install: Consul $version is installed"
