"""Writes seeds of a kind with other people's writers and runs a fuzz target on them.

    run_fuzz.py replay EXE KIND COUNT      plain binary: seeds, cuts, COUNT mutations
    run_fuzz.py libfuzzer EXE KIND RUNS    libFuzzer binary

RF_EXHAUSTIVE=1 does a hundred times as much."""

import ctypes
import io
import os
import pathlib
import random
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile

import numpy


def tar_seeds():
    for tar_format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        for length in (10, 150, 300):
            out = io.BytesIO()
            with tarfile.open(fileobj=out, mode="w", format=tar_format, pax_headers={"comment": "x", "path": "g"} if length == 10 else {}) as tar:
                for i, kind in enumerate((tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.REGTYPE)):
                    name = f"{i}/" + "n" * (length // 2) + "/" + "m" * (length // 2)
                    if tar_format == tarfile.USTAR_FORMAT and length > 200:
                        name = name[:90]
                    info = tarfile.TarInfo(name)
                    info.type, info.size = kind, 700 * (kind == tarfile.REGTYPE)
                    if tar_format == tarfile.PAX_FORMAT:
                        info.pax_headers = {"size": "700", "GNU.spar": "1"}
                    tar.addfile(info, io.BytesIO(bytes(700)) if info.size else None)
            yield out.getvalue()[: 512 * 30]


def npy_seeds():
    for dtype in ("<f4", ">i8", "<U3", "|b1", "<M8[ns]", [("a", "<i4"), ("b", "<f8", (2, 3))], [("x", [("y", "u1")])]):
        for shape in ((3,), (2, 5), (), (0, 4)):
            for version in ((1, 0), (2, 0), (3, 0)):
                out = io.BytesIO()
                numpy.lib.format.write_array(out, numpy.zeros(shape, dtype), version=version)
                yield out.getvalue()
    yield b"\x93NUMPY\x01\0\x40\0{'descr': '|O', 'fortran_order': True, 'shape': (3L, 4L,), }"


def idx_seeds():
    for code, size in ((8, 1), (9, 1), (0xB, 2), (0xC, 4), (0xD, 4), (0xE, 8)):
        for shape in ((4,), (2, 3), (2, 2, 2), (0, 5)):
            n = size
            for d in shape:
                n *= d
            yield bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + bytes(n)


def image_seeds():
    rng = random.Random(1)
    for kind in range(4):
        yield bytes([kind << 1])
        for _ in range(8):
            patches = b"".join(
                struct.pack("<IQ", rng.choice([rng.randrange(800), rng.randrange(1 << 16)]),
                            rng.choice([0, 1, 64, 255, 4096, 2**32 - 1, 2**48, 2**63, 2**64 - 1, rng.randrange(1 << 20)]))
                for _ in range(rng.randrange(1, 4))
            )
            yield bytes([kind << 1]) + patches
    yield b"\x01" + b"\x89RFINDX\n" + struct.pack("<II", 0x01020304, 1) + bytes(5000)


SEEDS = {"tar": tar_seeds, "npy": npy_seeds, "idx": idx_seeds, "image": image_seeds}


def main():
    mode, exe, kind, count = sys.argv[1:5]
    exe = os.path.abspath(exe)
    count = int(count) * (100 if os.environ.get("RF_EXHAUSTIVE") == "1" else 1)
    with tempfile.TemporaryDirectory() as folder:
        seeds = []
        for i, data in enumerate(SEEDS[kind]()):
            seeds.append(pathlib.Path(folder) / f"{i:03d}")
            seeds[-1].write_bytes(data)
        if mode == "replay":
            command = [exe, str(count), *map(str, seeds)]
        else:
            seconds = count // 5000  # whichever comes first
            command = [exe, f"-runs={count}", f"-max_total_time={seconds}", "-seed=1", "-max_len=16384", folder]
        env = os.environ | {"UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"}
        done = subprocess.run(command, cwd=folder, check=False, env=env,
                              preexec_fn=lambda: ctypes.CDLL(None).prctl(1, signal.SIGKILL))
        sys.exit(done.returncode)


main()
