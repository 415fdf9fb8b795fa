#!/bin/sh
# Mounts the data disk: disk.sh SERIAL MOUNTPOINT. Makes a file system only on a disk that holds nothing at all.
# The disk is attached after the machine's first boot has begun, so it is waited for, as long as it takes.
# disk.sh grow MOUNTPOINT: only enlarges the file system of a mounted disk that was enlarged.
set -eu
serial=$1 mountpoint=$2 label=consul-data marks=/var/lib/consul-disk

fail() {
  echo "consul-disk: $*" >&2
  exit 1
}

# The serial is the disk's id without "d-"; device names say nothing (docs/facts/cloud.md, "Names of disks in the machine").
find_disk() {
  for link in "/dev/disk/by-id/virtio-$serial" "/dev/disk/by-id/nvme-Alibaba_Cloud_Elastic_Block_Storage_$serial"; do
    [ -b "$link" ] && readlink -f "$link" && return
  done
  lsblk -dno PATH,SERIAL 2>/dev/null | awk -v serial="$serial" '$2 == serial { print $1; exit }'
}

# Prints "empty", or what speaks against that. A new cloud disk is all zeros; reading all of it would take minutes.
# Read are 1 MiB to either side of each 32nd part of the disk, and 16 KiB at each 8 MiB. That covers partition tables, the
# labels of LVM, RAID and LUKS, the ends of the disk included, every superblock of ext2 to ext4 whatever the block size (a
# block group is a multiple of 8 MiB), and those of XFS where mkfs.xfs divides the disk as it does by default.
look() {
  python=$(command -v python3 || echo /usr/libexec/platform-python)
  "$python" - "$1" 2>&1 <<'END' | tail -n 1
import sys
mib = 1 << 20
disk = open(sys.argv[1], "rb", 0)
size = disk.seek(0, 2)
places = [(size * n // 32 - mib, 2 * mib) for n in range(33)] + [(at, 16384) for at in range(0, size, 8 * mib)]
for at, length in places:
    start, end = max(at, 0), min(at + length, size)
    disk.seek(start)
    data = disk.read(end - start)
    if len(data) < end - start: sys.exit("unreadable after byte %d" % start)
    if data.strip(b"\0"): sys.exit("data after byte %d" % start)
print("empty")
END
}

# The system disk remembers which data disks were in use here: one of those is never formatted, whatever is found on it. A
# new system disk remembers nothing, and then a disk that looks empty is taken for empty.
remember() {
  [ "$(cat "$marks/$serial" 2>/dev/null)" != "$1" ] || return 0
  mkdir -p "$marks"
  echo "$1" >"$marks/$serial"
  sync "$marks/$serial"
}

format() {
  was=$(cat "$marks/$serial" 2>/dev/null) || was=new
  [ "$was" != used ] || fail "$disk was in use here, and no file system is found on it now; it is left alone"
  # "begun": the disk was empty, and the power failed while the file system was made.
  found=$(look "$disk")
  case $found/$was in
    empty/* | data*/begun) ;;
    *) fail "$disk is not known to be empty ($found); it is left alone" ;;
  esac
  remember begun
  mkfs.ext4 -q -L "$label" "$disk"
  echo "consul-disk: made a file system on $disk, which was empty"
}

grow() {
  said=$(resize2fs "$(findmnt -no SOURCE "$mountpoint")" 2>&1) || fail "the file system stays as large as it is: $said"
  case $said in *"Nothing to do"*) ;; *) echo "consul-disk: the file system has grown: ${said##*
}" ;; esac
}

if [ "$serial" = grow ]; then
  grow
  exit 0
fi

if ! mountpoint -q "$mountpoint"; then
  waited=0
  until disk=$(find_disk) && [ -n "$disk" ]; do
    [ $((waited % 60)) -ne 5 ] || echo "consul-disk: no disk with serial $serial, waiting: is it attached to this instance?" >&2
    waited=$((waited + 1))
    sleep 1
  done

  # blkid says 2 for "nothing found", and also for a disk that it cannot read.
  code=0
  content=$(blkid -p -o export "$disk") || code=$?
  case $code in
    0)
      echo "$content" | grep -qx "LABEL=$label" ||
        fail "$disk holds something that is not ours ($(echo "$content" | tr '\n' ' ')); it is left alone"
      ;;
    2) format ;;
    *) fail "cannot tell what $disk holds (blkid: $code); it is left alone" ;;
  esac

  mkdir -p "$mountpoint"
  mount "$disk" "$mountpoint"
  remember used || echo "consul-disk: cannot note in $marks that $disk is in use" >&2
fi
(grow) || :
install -d -o consul -g consul -m 0700 "$mountpoint/data"
# Another image may have another number for this user.
chown -R consul:consul "$mountpoint/data"
