#!/bin/sh
# Mounts the data disk: disk.sh SERIAL MOUNTPOINT. Makes a file system only on a disk that holds nothing at all.
# The disk is attached after the machine's first boot has begun, so it is waited for, as long as it takes.
set -eu
serial=$1 mountpoint=$2 label=consul-data

fail() {
  echo "consul-disk: $*" >&2
  exit 1
}

# The serial is the disk's id without "d-"; device names say nothing (reference: ECS, "Obtain the serial number").
find_disk() {
  for link in "/dev/disk/by-id/virtio-$serial" "/dev/disk/by-id/nvme-Alibaba_Cloud_Elastic_Block_Storage_$serial"; do
    [ -b "$link" ] && readlink -f "$link" && return
  done
  lsblk -dno PATH,SERIAL 2>/dev/null | awk -v serial="$serial" '$2 == serial { print $1; exit }'
}

if ! mountpoint -q "$mountpoint"; then
  waited=0
  until disk=$(find_disk) && [ -n "$disk" ]; do
    [ $((waited % 60)) -ne 5 ] || echo "consul-disk: no disk with serial $serial, waiting: is it attached to this instance?" >&2
    waited=$((waited + 1))
    sleep 1
  done

  # blkid says 2 for "nothing found", and also for a disk that it cannot read, which must never look like an empty one.
  head -c 1048576 "$disk" >/dev/null || fail "cannot read $disk; it is left alone"
  found=0
  content=$(blkid -p -o export "$disk") || found=$?
  case $found in
    0)
      echo "$content" | grep -qx "LABEL=$label" ||
        fail "$disk holds something that is not ours ($(echo "$content" | tr '\n' ' ')); it is left alone"
      ;;
    2)
      mkfs.ext4 -q -L "$label" "$disk"
      echo "consul-disk: made a file system on $disk, which was empty"
      ;;
    *) fail "cannot read $disk (blkid: $found); it is left alone" ;;
  esac

  mkdir -p "$mountpoint"
  mount -L "$label" "$mountpoint"
  [ "$(readlink -f "$(findmnt -no SOURCE "$mountpoint")")" = "$disk" ] || {
    umount "$mountpoint"
    fail "two disks are labelled $label, and the one with serial $serial was not the one mounted"
  }
fi
# A disk that was enlarged gets its file system enlarged; otherwise this does nothing.
resize2fs "$(findmnt -no SOURCE "$mountpoint")" >/dev/null 2>&1 || echo "consul-disk: resize2fs failed, the size stays" >&2
install -d -o consul -g consul -m 0700 "$mountpoint/data"
# Another image may have another number for this user.
chown -R consul:consul "$mountpoint/data"
