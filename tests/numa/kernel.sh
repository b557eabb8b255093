#!/bin/sh
# kernel.sh DIR: prints the path of a kernel that the emulated machine can boot, fetched from Debian into DIR when it is
# not there. It is unpacked, never installed. The one for cloud machines has NVMe, ext4 and NUMA built in, so no module has
# to be loaded.
set -eu
dir=$1
mkdir -p "$dir"
kernel() { find "$dir" -path '*/boot/vmlinuz-*' | sort | tail -n 1; }

if [ -z "$(kernel)" ]; then
    [ "$(uname -m)" = x86_64 ] || { echo "numa: the emulated machine is an x86-64 one, this is none" >&2; exit 1; }
    cd "$dir"
    package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
    [ -n "$package" ] || { echo "numa: apt knows no linux-image-cloud-amd64. Run apt-get update" >&2; exit 1; }
    apt-get -qq download "$package" 2>apt.log || { cat apt.log >&2; exit 1; }
    dpkg-deb -x "$package"_*.deb unpacked
    rm -f ./*.deb
fi
kernel
