#!/bin/sh
# own-shm.sh [COMMAND…]: runs it with a /dev/shm of its own, so that the `gc` of one set of tests does not take the dead
# runs of another away. What it leaves there is named, exit status 70. Exit status 71: no such thing can be had here (it
# takes root); without a command that is all that is looked at.
set -u
if [ "${RINGFEED_OWN_SHM:-}" != inside ]; then
    command -v unshare >/dev/null || exit 71
    RINGFEED_OWN_SHM=inside unshare -m "$0" "$@"
    status=$?
    [ $status -ne 1 ] || [ $# -ne 0 ] || exit 71
    exit $status
fi
unset RINGFEED_OWN_SHM
mount --make-rprivate / && mount -t tmpfs -o mode=1777,nosuid,nodev ringfeed-tests /dev/shm || exit 71
[ $# -ne 0 ] || exit 0
"$@"
status=$?
left=$(find /dev/shm -maxdepth 1 -name 'ringfeed.*' | sort)
[ -z "$left" ] || { echo "left in /dev/shm:" "$left" >&2; exit 70; }
exit $status
