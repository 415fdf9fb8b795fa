#!/bin/sh
# Makes one Consul version available: install.sh VERSION [MIRROR [SHA256]]. Does nothing where it is there already.
# Fetches MIRROR/VERSION/consul_VERSION_linux_ARCH.zip and checks it against SHA256, or the mirror's own SHA256SUMS.
# Without a MIRROR, both are taken from the file that the user data left.
# Each version has a directory of its own, so that fetching the next one takes nothing from the one that runs.
# CONSUL_LIB and CONSUL_BIN are for tests.
set -eu
lib=${CONSUL_LIB:-/usr/local/lib/consul}
[ $# -gt 1 ] || set -- "$1" $(cat "$lib/mirror")
version=$1 mirror=${2%/} sha256=${3:-}
versions=$lib/versions
bin=${CONSUL_BIN:-/usr/local/bin/consul}
target=$versions/$version/consul

fail() {
  echo "consul-install: $*" >&2
  exit 1
}
is_wanted() { case $("$1" version 2>/dev/null | head -n 1) in "Consul v$version") ;; *) return 1 ;; esac }

# keep FILE: as the wanted version, whole or not at all.
keep() {
  mkdir -p "$versions/$version"
  chmod 0755 "$versions" "$versions/$version"
  install -m 0755 "$1" "$target.new"
  mv -f "$target.new" "$target"
}

# The command for people follows; what runs names its version itself. The version before stays: it may still run.
finish() {
  before=$(readlink "$bin" 2>/dev/null) || before=
  if [ "$before" != "$target" ]; then
    ln -sfn "$target" "$bin.new"
    mv -fT "$bin.new" "$bin"
    for other in "$versions"/*; do
      case $other in "$versions/$version" | "${before%/consul}") ;; *) rm -rf "$other" ;; esac
    done
  fi
  exit 0
}

if is_wanted "$target"; then finish; fi
# An image may bring it.
if [ ! -L "$bin" ] && is_wanted "$bin"; then
  keep "$bin"
  finish
fi

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
keep "$tmp/consul"
echo "consul-install: Consul $version is installed"
finish
