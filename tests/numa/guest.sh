#!/bin/busybox sh
# /init of the emulated machine: runs ringfeed in several situations, and writes down what the kernel says of it. It judges
# nothing: everything goes as a tar archive to the disk with the serial number "facts", and test_numa.py looks at it
# outside.
# shellcheck shell=dash
/bin/busybox --install -s /bin
export PATH=/bin LD_LIBRARY_PATH=/lib
mount -t proc p /proc
mount -t sysfs s /sys
mount -t devtmpfs d /dev
mkdir -p /dev/shm /data /facts /cgroup
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t cgroup2 c /cgroup

disk() { # SERIAL: NVMe drives are numbered in the order in which they answered
    for d in /sys/block/nvme*; do
        [ "$(tr -d ' ' <"$d/device/serial")" != "$1" ] || echo "/dev/${d##*/}"
    done
}

# What the kernel knows of a process.
describe() { # PID DIRECTORY
    mkdir -p "$2"
    for file in maps numa_maps status stat smaps; do cat "/proc/$1/$file" >"$2/$file"; done
}

# scene NAME RANKS SERVE-OPTION…: a run to its end of the first epoch, described while it stands there.
scene() {
    at=/facts/$1 ranks=$2
    shift 2
    mkdir -p "$at"
    order="--format raw --record-bytes 4096 --world-size $ranks --batch ${batch:-16} --shuffle full --seed 7"
    # shellcheck disable=SC2086 # options
    ringfeed plan /data/samples.bin $order --json "$@" >"$at/plan.json" 2>"$at/plan.err"
    cat /sys/devices/system/node/node2/meminfo >"$at/node2.meminfo"
    # shellcheck disable=SC2086
    ringfeed serve /data/samples.bin --name s $order --epochs 0 --heartbeat-ms 20000 "$@" >"$at/serve.out" 2>"$at/serve.err" &
    server=$!
    read -r began _ </proc/uptime
    until grep -q ready "$at/serve.out"; do usleep 20000; done
    read -r ready _ </proc/uptime
    echo "$began $ready" >"$at/uptime"
    trainers=
    for r in $(seq 0 $((ranks - 1))); do
        ringfeed attach s --rank "$r" --limit "$((${samples:-2048} / ranks / ${batch:-16}))" --check --ids "$at/ids.$r" --timeout-ms 60000 \
            --json >"$at/attach.$r" 2>&1 &
        trainers="$trainers $!"
    done
    for t in $trainers; do
        wait "$t"
        echo "$?" >>"$at/attach.status"
    done
    ringfeed stat s --json >"$at/stat.json" 2>"$at/stat.err"
    describe "$server" "$at/server"
    tr ' ' '\n' <"/proc/$server/task/$server/children" | while read -r child; do
        [ -z "$child" ] || describe "$child" "$at/worker.$child"
    done
    kill "$server"
    wait "$server"
    echo "$?" >"$at/serve.status"
}

# in_cpuset NODES CPUS COMMAND…
in_cpuset() {
    echo +cpuset >/cgroup/cgroup.subtree_control
    mkdir -p /cgroup/some
    echo "$1" >/cgroup/some/cpuset.mems
    echo "$2" >/cgroup/some/cpuset.cpus
    shift 2
    ( # this shell, not its parent
        sh -c 'echo $PPID' >/cgroup/some/cgroup.procs
        "$@"
    )
}

# fill FROM TO: leaves hardly a free page on node 2, read or written by one of its CPUs.
fill() {
    free=$(awk '$3 == "MemFree:" { print $4 }' /sys/devices/system/node/node2/meminfo)
    taskset 10 dd if="$1" of="$2" bs=64k count=$((free / 64 + 256)) 2>/dev/null
}

mkdir -p /mnt
mount -t ext4 -o ro "$(disk data)" /data
cat /proc/cmdline /sys/devices/system/node/has_memory /sys/devices/system/node/has_cpu >/facts/machine
basename "$(disk data)" >/facts/disk

scene gpus 4 --ring-bytes 4M --workers 4 --engine uring --direct on
scene small 4 --workers 4
scene one-worker 4 --ring-bytes 4M --workers 1
scene crowded 4 --ring-bytes 4M --workers 12
scene off 4 --ring-bytes 4M --workers 4 --numa off --pin off
scene no-memory 5 --ring-bytes 4M --workers 5
in_cpuset 0-1,3 0-3,6-7 scene cpuset 4 --ring-bytes 4M --workers 4
fill /data/hole /dev/null # with page cache, which can be given up
scene cached 4 --ring-bytes 64M --workers 4
echo 3 >/proc/sys/vm/drop_caches
mount -t tmpfs -o size=2g fill /mnt
fill /dev/zero /mnt/fill # with what cannot
scene full 4 --ring-bytes 64M --workers 4

tar -cf "$(disk facts)" -C /facts .
sync
read -r up _ </proc/uptime
echo "DONE after $up s"
poweroff -f
