"""check_cost.py WORKER-COST: instructions of a worker and its trainer for a sample and a batch that are in memory.

Counted by callgrind, so the same on every machine of one instruction set. Two batch sizes and two numbers of batches:
what a run costs before its first batch falls out, and what is left is split into a part a sample and a part a batch. The
copy itself (memcpy and its kin in the C library) and the order function (what lib/order does) are not counted, nor looks at the
page cache, of which there is one a chunk until the kernel takes pages away, nor fail points, which only builds for tests
have."""

import os
import re
import shutil
import subprocess
import sys
import tempfile

RECORD, SAMPLES = 2048, 70000  # more than a shuffle keeps as a table
A_SAMPLE, A_BATCH = 150, 2000
EXCLUDED = re.compile(r"mem(cpy|move|set)|rfi_feistel|rfi_permutation|rfi_view|rfi_order|rfi_cache|fill_own|find_batch|rfi_fail_point|chunk_there|count_pages|rfi_maps_look")
SKIPPED = 77


def count(binary, data, directory, batch, batches):
    out = os.path.join(directory, f"out.{batch}.{batches}")
    subprocess.run(["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={out}", binary, "--engine", "mapped", "--batch",
                    str(batch), "--batches", str(batches), "--record-bytes", str(RECORD), data], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    text = subprocess.run(["callgrind_annotate", "--threshold=100", "--show-percs=no", out], check=True, stdout=subprocess.PIPE,
                          text=True).stdout
    total = 0
    for line in text.splitlines():
        m = re.match(r"\s*([\d,]+)\s+\S+?:(\S+)", line)
        if m and not EXCLUDED.search(m[2]):
            total += int(m[1].replace(",", ""))
    return total


def slope(binary, data, directory, batch):
    few, many = 50, 150
    return (count(binary, data, directory, batch, many) - count(binary, data, directory, batch, few)) / (many - few)


def main():
    if not shutil.which("valgrind"):
        print("SKIPPED: no valgrind here (package valgrind)")
        sys.exit(SKIPPED)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        data = os.path.join(directory, "data")
        with open(data, "wb") as f:
            for _ in range(SAMPLES):
                f.write(os.urandom(64) * (RECORD // 64))
        for _ in range(3):  # what depends on the clock can only add
            small, large = slope(sys.argv[1], data, directory, 32), slope(sys.argv[1], data, directory, 256)
            a_sample = (large - small) / (256 - 32)
            a_batch = small - 32 * a_sample
            print(f"{a_sample:.0f} instructions a sample (at most {A_SAMPLE}), {a_batch:.0f} a batch (at most {A_BATCH})")
            if a_sample <= A_SAMPLE and a_batch <= A_BATCH:
                break
    sys.exit(a_sample > A_SAMPLE or a_batch > A_BATCH)


main()
