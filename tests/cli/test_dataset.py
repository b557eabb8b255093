"""Datasets through the command: every format against other people's writers and readers, the truth
lines of real files, detection, refusals, and index files that moved, went stale or were damaged.

RF_EXHAUSTIVE=1 feeds every foreign file to every format (a few minutes)."""

import hashlib
import io
import itertools
import json
import os
import pathlib
import random
import shutil
import struct
import tarfile

import numpy
import pytest

EXHAUSTIVE = os.environ.get("RF_EXHAUSTIVE") == "1"
FORMATS = ("raw", "idx", "npy", "tar", "webdataset", "tfrecord", "imagefolder", "files")
DATA = pathlib.Path(
    os.environ.get("RINGFEED_SHARED_DATA", pathlib.Path(__file__).resolve().parents[2].parent / "shared" / "data")
)


def truth_lines():
    path = DATA / "truth.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


TRUTH = truth_lines()


def sha(data):
    return hashlib.sha256(data).hexdigest()


def read_extent(line):
    """The bytes that a line of `samples --json` points to, read without ringfeed."""
    with open(line["file"], "rb") as f:
        f.seek(line["offset"])
        data = f.read(line["extent_bytes"])
    assert len(data) == line["extent_bytes"]
    return data


def read_all(ringfeed, path, *args):
    """Samples' lines and bytes; samples of several fields by `cat`, the others from their extents."""
    lines = ringfeed.json_lines("samples", path, *args)
    assert [line["index"] for line in lines] == list(range(len(lines)))
    data = []
    for line in lines:
        if line["bytes"] == line["extent_bytes"]:
            data.append(read_extent(line))
        else:
            data.append(ringfeed.ok("cat", path, *args, "-i", line["index"], text=False))
        assert len(data[-1]) == line["bytes"]
    return lines, data


# ---- real files with verified truth -----------------------------------------------------------------


def why_refused(line):
    """What the message must name when a kind of file is refused on purpose, else None."""
    if line.get("compression"):  # one file is called .gz and is not
        return "compressed"
    if line.get("sparse_members"):
        return "sparse"
    if line.get("fortran_order"):
        return "Fortran"
    if "O" in str(line.get("dtype", "")):
        return "object"
    return None


OURS = [t for t in TRUTH if t["format"] in FORMATS and (t["expect"] == "ok" or why_refused(t) == "object")]


def test_an_index_takes_the_place_of_nothing_else(ringfeed, make, tmp_path):
    """-o that names the data, or any other file, must not destroy it; an index of any age may be replaced."""
    made = make.npy(n=5)
    before = made.path.read_bytes()
    ringfeed.fails("index", made.path, "-o", made.path, says=[made.path, "not an index"])
    assert made.path.read_bytes() == before
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    ringfeed.fails("index", made.path, "-o", notes, says="not an index")
    assert notes.read_text() == "mine"
    index = tmp_path / "a.rfi"
    index.touch()  # empty: nothing to lose
    for damage in (b"", None):
        ringfeed.ok("index", made.path, "-o", index)
        assert ringfeed.json("inspect", index)["samples"] == 5
        if damage is not None:
            index.write_bytes(index.read_bytes()[:500])


def truth_name(line):
    """pytest asks for the name of its placeholder too when there is no line."""
    return line["path"] if isinstance(line, dict) else None


@pytest.mark.skipif(not TRUTH, reason=f"{DATA} is not here (RINGFEED_SHARED_DATA names it)")
@pytest.mark.parametrize("line", OURS, ids=truth_name)
def test_truth(ringfeed, line):
    path, args = DATA / line["path"], ("--format", line["format"])
    reason = why_refused(line)
    if reason:
        ringfeed.fails("inspect", path, *args, says=reason)
        ringfeed.fails("inspect", path, says=reason)
        return
    info = ringfeed.json("inspect", path, *args)
    assert info["format"] == line["format"]
    lines, data = read_all(ringfeed, path, *args)
    assert info["samples"] == len(lines) == line["samples"]
    assert info["bytes"] == sum(map(len, data)) == line["total_bytes"]
    assert sha(b"".join(data)) == line["concat_sha256"]
    check_probes(ringfeed, line, path, args, lines, data)
    if "labels_head" in line and line["format"] != "tfrecord":  # there they are inside the payload
        assert [x["label"] for x in lines[:10]] == [int(v) for v in line["labels_head"]][: len(lines)]
    if line["format"] in ("idx", "npy"):
        assert info["shape"] == line["shape"][1:]
        assert numpy.dtype(info["dtype"]) == numpy.dtype(line["dtype"])
    if "files" in line:
        assert [x["key"] for x in lines] == line["files"]
    found = ringfeed.json("inspect", path)  # detected by content: the same bytes
    assert (found["samples"], found["bytes"]) == (info["samples"], info["bytes"])


def check_probes(ringfeed, line, path, args, lines, data):
    for probe in line["probe"]:
        i = probe["i"]
        assert (len(data[i]), sha(data[i])) == (probe["bytes"], probe["sha256"])
        assert sha(ringfeed.ok("cat", path, *args, "-i", i, text=False)) == probe["sha256"]
        name = probe.get("key", probe.get("name"))
        if name and not name.startswith("hexname:"):
            assert lines[i]["key"] == name
        for member in probe.get("members", ()):
            part = ringfeed.ok("cat", path, *args, "-i", i, "--field", member["ext"], text=False)
            assert (len(part), sha(part)) == (member["bytes"], member["sha256"])


@pytest.mark.skipif(not TRUTH, reason=f"{DATA} is not here (RINGFEED_SHARED_DATA names it)")
def test_foreign_and_hostile_files_give_a_definite_answer(ringfeed):
    files = sorted({DATA / t["path"] for t in TRUTH} | {p for t in TRUTH for p in (DATA / t["path"]).parent.iterdir()})
    rotate = itertools.cycle([f for f in FORMATS if f not in ("files", "raw")])
    for path in files:
        for name in (None, *(FORMATS if EXHAUSTIVE else [next(rotate)])):
            args = ("--format", name) if name else ()
            args += ("--record-bytes", 7) if name == "raw" else ()
            for verb in ("inspect", "samples") if EXHAUSTIVE else ("inspect",):
                done = ringfeed(verb, path, *args, timeout=30, env={"UBSAN_OPTIONS": "halt_on_error=1"})
                assert done.returncode in (0, 1), f"{path} {args}: {done.returncode} {done.stderr}"
                assert done.returncode == 0 or done.stderr.startswith("ringfeed: "), done.stderr


# ---- tar --------------------------------------------------------------------------------------------


def write_tar(path, members, tar_format, **options):
    with tarfile.open(path, "w", format=tar_format, **options) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


TAR_FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def expect_tar(ringfeed, path, *args):
    """Compares with tarfile's own reading of the archive."""
    lines, data = read_all(ringfeed, path, "--format", "tar", *args)
    with tarfile.open(path) as tar:
        regular = [m for m in tar if m.isreg()]
        assert [(x["key"], x["offset"], x["bytes"]) for x in lines] == [(m.name, m.offset_data, m.size) for m in regular]
        assert data == [tar.extractfile(m).read() for m in regular]
    return lines


@pytest.mark.parametrize("tar_format", TAR_FORMATS)
def test_tar_in_every_format(ringfeed, tmp_path, tar_format):
    rng = random.Random(1)
    members = [(f"dir{i % 3}/file-{i}", rng.randbytes(rng.choice([0, 1, 511, 512, 513, 10000]))) for i in range(40)]
    members.append(("p" * 90 + "/" + "q" * 90, b"prefix"))
    if tar_format != "ustar":
        members += [("long/" + "n" * n, b"%d" % n) for n in (99, 100, 101, 255, 256, 1000, 4000)]
        members += [("ümläut/π/" + "x" * 200, b"unicode")]
    write_tar(tmp_path / "a.tar", members, TAR_FORMATS[tar_format])
    lines = expect_tar(ringfeed, tmp_path / "a.tar")
    assert [x["key"] for x in lines] == [name for name, _ in members]


def test_tar_other_members_are_passed_over(ringfeed, tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "global"}) as tar:
        for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            info = tarfile.TarInfo(f"other-{kind!r}")
            info.type, info.linkname = kind, "x" * 300
            tar.addfile(info)
            info = tarfile.TarInfo(f"file-{kind!r}")
            info.size = 700
            info.pax_headers = {"SCHILY.xattr.user.x": "\n1 2=3\n" * 50}
            tar.addfile(info, io.BytesIO(bytes([kind[0]]) * 700))
    assert len(expect_tar(ringfeed, path)) == 5


def header(name, size, kind=b"0", magic=b"ustar\x0000", **fields):
    """One tar header by hand. `size` as bytes goes in as it is."""
    b = bytearray(512)
    b[0 : len(name)] = name
    b[100:108] = b"0000644\0"
    b[124:136] = size if isinstance(size, bytes) else b"%011o\0" % size
    b[136:148] = b"00000000000\0"
    b[156:157] = kind
    b[257:265] = magic
    for at, data in fields.get("patch", {}).items():
        b[at : at + len(data)] = data
    b[148:156] = b" " * 8
    total = sum(b) if not fields.get("signed") else sum(x - 256 if x > 127 else x for x in b)
    b[148:156] = fields.get("checksum", b"%06o\0 " % total)
    return bytes(b)


def padded(data):
    return data + bytes(-len(data) % 512)


def pax(**records):
    text = b""
    for key, value in records.items():
        body = b" " + key.replace("__", ".").encode() + b"=" + value + b"\n"
        n = len(body)
        while n != len(body) + len(str(n)):
            n = len(body) + len(str(n))
        text += str(n).encode() + body
    return text


END = bytes(1024)


def test_tar_numbers_and_names_by_hand(ringfeed, tmp_path):
    size256 = b"\x80" + (5).to_bytes(11, "big")
    blocks = [
        (b"base256", 5, header(b"base256", size256) + padded(b"12345")),
        (b"v7", 2, header(b"v7", 2, kind=b"\0", magic=bytes(8)) + padded(b"ab")),
        (None, 0, header(b"v7-folder/", 0, kind=b"\0", magic=bytes(8))),
        (b"contiguous", 3, header(b"contiguous", 3, kind=b"7") + padded(b"abc")),
        (b"\xff\xfesigned", 1, header(b"\xff\xfesigned", 1, signed=True) + padded(b"s")),
        (b"spaces", 4, header(b"spaces", b"         4 \0") + padded(b"four")),
        (b"pax-size", 9, header(b"./PaxHeaders/x", len(pax(size=b"9", path=b"pax-size")), kind=b"x")
         + padded(pax(size=b"9", path=b"pax-size")) + header(b"x", 0) + padded(b"123456789")),
        (b"gnu-prefix-is-not-a-name", 1, header(b"gnu-prefix-is-not-a-name", 1, magic=b"ustar  \0",
                                               patch={345: b"12345670123"}) + padded(b"g")),
        (b"pre/fix", 1, header(b"fix", 1, patch={345: b"pre"}) + padded(b"p")),
    ]
    path = tmp_path / "a.tar"
    path.write_bytes(b"".join(b for _, _, b in blocks) + END)
    lines, data = read_all(ringfeed, path, "--format", "tar")
    expected = [(name.decode(errors="replace"), n) for name, n, _ in blocks if name]
    assert [(x["key"], x["bytes"]) for x in lines] == expected
    assert data[0] == b"12345" and data[5] == b"123456789"


@pytest.mark.parametrize(
    "what, archive, says",
    [
        ("truncated data", header(b"a", 2000) + bytes(512), "truncated"),
        ("truncated header", header(b"a", 0) + b"x" * 100, "truncated"),
        ("truncated padding", header(b"a", 3) + b"abc", "truncated"),
        ("checksum", header(b"a", 0) + header(b"b", 0, checksum=b"0000001\0"), "checksum"),
        ("huge base-256", header(b"a", b"\x80" + b"\x7f" * 11) + END, "number"),
        ("2^62", header(b"a", b"\x80\0\0\0" + (1 << 62).to_bytes(8, "big")) + END, "truncated"),
        ("negative", header(b"a", b"\xff" * 12) + END, "number"),
        ("no number", header(b"a", b"12x45678901\0") + END, "number"),
        ("gnu sparse", header(b"a", 512, kind=b"S", magic=b"ustar  \0") + bytes(512) + END, "sparse"),
        ("pax sparse", header(b"x", len(pax(GNU__sparse__size=b"9")), kind=b"x") + padded(pax(GNU__sparse__size=b"9"))
         + header(b"a", 0) + END, "sparse"),
        ("multi-volume", header(b"a", 0, kind=b"M") + END, "volume"),
        ("pax record", header(b"x", 9, kind=b"x") + padded(b"99 path=a") + header(b"a", 0) + END, "record"),
        ("pax size text", header(b"x", 12, kind=b"x") + padded(b"12 size=1e3\n") + header(b"a", 0) + END, "size"),
        ("huge pax", header(b"x", 1 << 40, kind=b"x") + END, "truncated"),
        ("long name claim", header(b"x", 2 << 20, kind=b"L") + bytes(2 << 20) + END, "1 MiB"),
        ("empty", b"", "empty"),
    ],
    ids=lambda v: v if isinstance(v, str) and " " in v else "",
)
def test_tar_refused(ringfeed, tmp_path, what, archive, says):
    path = tmp_path / "a.tar"
    path.write_bytes(archive)
    stderr = ringfeed.fails("inspect", path, "--format", "tar", says=says)
    assert str(path) in stderr


def test_tar_without_end_mark_and_of_nothing(ringfeed, tmp_path):
    (tmp_path / "a.tar").write_bytes(header(b"a", 1) + padded(b"z"))
    assert len(expect_tar(ringfeed, tmp_path / "a.tar")) == 1
    for n in (1024, 10240):
        (tmp_path / "none.tar").write_bytes(bytes(n))
        assert ringfeed.json("inspect", tmp_path / "none.tar")["samples"] == 0
        assert ringfeed.ok("samples", tmp_path / "none.tar") == ""


# ---- tfrecord ---------------------------------------------------------------------------------------


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def tfrecord(payload):
    length = struct.pack("<Q", len(payload))
    return length + masked(length) + payload + masked(payload)


def test_tfrecord_payloads(ringfeed, tmp_path):
    assert crc32c(b"123456789") == 0xE3069283
    rng = random.Random(5)
    shards = [[rng.randbytes(rng.choice([0, 1, 11, 12, 700])) for _ in range(n)] for n in (30, 1)]
    folder = tmp_path / "records"
    folder.mkdir()
    for i, payloads in enumerate([*shards, []]):
        (folder / f"part-{i}").write_bytes(b"".join(map(tfrecord, payloads)))
    lines, data = read_all(ringfeed, folder, "--format", "tfrecord")
    assert data == sum(shards, []) and [x["file"][-1] for x in lines] == ["0"] * 30 + ["1"]
    (folder / "part-2").unlink()  # an empty file is of no format
    assert ringfeed.json("inspect", folder)["format"] == "tfrecord"


@pytest.mark.parametrize(
    "damage, says",
    [
        (lambda b: b[:20] + b"\x01" + b[21:], "offset 19: the checksum of its length is wrong"),
        (lambda b: b[:-1], "truncated"),
        (lambda b: b + b"\0" * 5, "truncated"),
        (lambda b: b + struct.pack("<Q", 1 << 63) + masked(struct.pack("<Q", 1 << 63)) + b"\0" * 9, "truncated"),
    ],
    ids=["length", "cut", "rest", "huge"],
)
def test_tfrecord_refusals(ringfeed, tmp_path, damage, says):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(damage(tfrecord(b"abc") + tfrecord(b"defgh")))
    ringfeed.fails("inspect", path, "--format", "tfrecord", says=[path, says])


# ---- webdataset -------------------------------------------------------------------------------------


def test_webdataset_groups_fields_and_labels(ringfeed, tmp_path):
    rng = random.Random(3)
    expected = []  # (key, [(field, data)], label)
    members = [("__meta__", b"not a sample"), ("README", b"no dot")]
    for i in range(30):
        fields = [("jpg", rng.randbytes(rng.randint(0, 2000))), ("cls", b" %d\n" % (i % 4)), ("seg.PNG", b"mask")]
        rng.shuffle(fields)
        fields = fields[: rng.randint(1, 3)]
        key = f"part{i // 10}/{i:04d}"
        members += [(f"{key}.{ext}", data) for ext, data in fields]
        label = i % 4 if any(ext == "cls" for ext, _ in fields) else None
        expected.append((key, [(ext.lower(), data) for ext, data in fields], label))
    write_tar(tmp_path / "a.tar", members, tarfile.GNU_FORMAT)
    info = ringfeed.json("inspect", tmp_path / "a.tar")
    assert (info["format"], info["samples"], info["classes"]) == ("webdataset", 30, 4)
    assert sorted(info["fields"]) == ["cls", "jpg", "seg.png"]
    lines, data = read_all(ringfeed, tmp_path / "a.tar")
    assert [(x["key"], x["label"]) for x in lines] == [(k, label) for k, _, label in expected]
    assert data == [b"".join(d for _, d in fields) for _, fields, _ in expected]
    for i in (0, 7, 29):
        for ext, part in expected[i][1]:
            assert ringfeed.ok("cat", tmp_path / "a.tar", "-i", i, "--field", ext, text=False) == part
        ringfeed.fails("cat", tmp_path / "a.tar", "-i", i, "--field", "flac", says=["flac", str(i)])


def test_webdataset_label_field_and_refusals(ringfeed, tmp_path):
    path = tmp_path / "a.tar"
    write_tar(path, [("a.jpg", b"1"), ("a.id", b"70000"), ("b.jpg", b"2"), ("b.id", b"-5")], tarfile.USTAR_FORMAT)
    lines = ringfeed.json_lines("samples", path, "--label-field", "id")
    assert [x["label"] for x in lines] == [70000, -5]
    assert [x["label"] for x in ringfeed.json_lines("samples", path)] == [None, None]
    ringfeed.fails("samples", path, "--label-field", "nothing", status=2, says="nothing")
    ringfeed.fails("samples", path, "--format", "tar", "--label-field", "id", status=2, says="--label-field")
    write_tar(path, [("a.x", b"1"), ("a.X", b"2")], tarfile.USTAR_FORMAT)
    ringfeed.fails("samples", path, says=["twice", "a"])
    write_tar(path, [(f"a.{i}", b"1") for i in range(65)], tarfile.USTAR_FORMAT)
    ringfeed.fails("samples", path, says="64")
    assert ringfeed.json("inspect", path, "--format", "tar")["samples"] == 65


def test_webdataset_shards_do_not_join_samples(ringfeed, tmp_path):
    for shard in "ab":
        write_tar(tmp_path / f"{shard}.tar", [("k.jpg", shard.encode()), ("k.cls", b"1")], tarfile.USTAR_FORMAT)
    lines, data = read_all(ringfeed, tmp_path)
    assert data == [b"a1", b"b1"]
    assert [pathlib.Path(x["file"]).name for x in lines] == ["a.tar", "b.tar"]


# ---- npy --------------------------------------------------------------------------------------------

DTYPES = ["<f4", ">f8", "|u1", "<i8", "|b1", "<c16", "<U5", "|S7", "<M8[ns]", ">u2",
          [("a", "<i4"), ("b", "<f8", (2, 3))], [("x", [("y", ">i2"), ("z", "|S3")])],
          numpy.dtype({"names": ["p", "q"], "formats": ["u1", "f8"], "offsets": [0, 8], "itemsize": 24})]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)], ids=str)
def test_npy_types_and_versions(ringfeed, tmp_path, dtype, version):
    dtype = numpy.dtype(dtype)
    for shape in [(6,), (5, 3), (2, 3, 4), (), (0,), (0, 3), (3, 0)]:
        n = int(numpy.prod(shape)) * dtype.itemsize
        array = numpy.frombuffer(random.Random(n).randbytes(n), dtype=dtype).reshape(shape)
        with open(tmp_path / "a.npy", "wb") as f:
            numpy.lib.format.write_array(f, array, version=version)
        info = ringfeed.json("inspect", tmp_path / "a.npy")
        rows = [array] if array.ndim == 0 else [array[i : i + 1] for i in range(len(array))]
        _, data = read_all(ringfeed, tmp_path / "a.npy")
        assert data == [r.tobytes() for r in rows], shape
        assert info["shape"] == list(shape[1:]) and info["format"] == "npy"
        assert numpy.dtype(info["dtype"]).itemsize == dtype.itemsize
        if dtype.names is None:
            assert numpy.dtype(info["dtype"]) == dtype


def npy(text, data=b"", version=1):
    head = text.encode()
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(head)) + head + data


@pytest.mark.parametrize(
    "content, says",
    [
        (npy("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2), }", bytes(16)), "Fortran"),
        (npy("{'descr': '|O', 'fortran_order': False, 'shape': (2,), }", bytes(16)), "object"),
        (npy("{'descr': [('a', '<f4'), ('b', '|O')], 'fortran_order': False, 'shape': (2,), }", bytes(24)), "object"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", bytes(11)), "truncated"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", bytes(13)), "follow"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999,), }"), "too large"),
        (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387904, 8), }"), "truncated"),
        (npy("{'descr': '|S0', 'fortran_order': False, 'shape': (1000000000000,), }"), "cannot be"),
        (npy("{'descr': '<f4', 'fortran_order': False, }"), "lacks"),
        (npy("{'descr': '<q4', 'fortran_order': False, 'shape': (), }", bytes(4)), "unknown"),
        (npy("{'descr': '<f4', 'fortran_order': 1, 'shape': (), }", bytes(4)), "fortran_order"),
        (npy("[" * 500), "dictionary"),
        (npy("{'descr': " + "[('a', " * 500), "nested"),
        (npy("{'descr': '<f4"), "string"),
        (npy("", version=4), "version"),
        (b"\x93NUMPY\x02\0\xff\xff\xff\x7f{", "header of"),
        (b"\x93NUMPY\x01\0\xff", "truncated"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_npy_refused(ringfeed, tmp_path, content, says):
    (tmp_path / "a.npy").write_bytes(content)
    stderr = ringfeed.fails("inspect", tmp_path / "a.npy", "--format", "npy", says=says)
    assert str(tmp_path / "a.npy") in stderr


def test_npy_shards(ringfeed, tmp_path):
    a, b, c = numpy.arange(12).reshape(4, 3), numpy.arange(6).reshape(2, 3), numpy.arange(8).reshape(4, 2)
    numpy.save(tmp_path / "a.npy", a)
    numpy.save(tmp_path / "b.npy", b)
    info = ringfeed.json("inspect", tmp_path)
    assert (info["samples"], info["shape"], info["files"]) == (6, [3], 2)
    numpy.save(tmp_path / "c.npy", c)  # records of another shape: samples of variable size
    info = ringfeed.json("inspect", tmp_path)
    assert (info["samples"], info["shape"], info["min_bytes"], info["max_bytes"]) == (10, [], 16, 24)
    _, data = read_all(ringfeed, tmp_path)
    assert data == [r.tobytes() for r in (*a, *b, *c)]
    numpy.save(tmp_path / "d.npy", c.astype("<f4"))
    ringfeed.fails("inspect", tmp_path, says=["a.npy", "d.npy", "<i8", "<f4"])


# ---- idx and labels ---------------------------------------------------------------------------------

IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def idx(array):
    code = next(c for c, t in IDX_TYPES.items() if numpy.dtype(t) == array.dtype)
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.mark.parametrize("dtype", IDX_TYPES.values())
def test_idx_types(ringfeed, tmp_path, dtype):
    for shape in [(7,), (4, 3), (3, 5, 2), (0, 28, 28)]:
        array = numpy.arange(int(numpy.prod(shape))).astype(dtype).reshape(shape)
        (tmp_path / "x").write_bytes(idx(array))
        info = ringfeed.json("inspect", tmp_path / "x")
        assert info["format"] == "idx" and numpy.dtype(info["dtype"]) == numpy.dtype(dtype)
        assert info["shape"] == list(shape[1:])
        assert read_all(ringfeed, tmp_path / "x")[1] == [array[i : i + 1].tobytes() for i in range(len(array))]


@pytest.mark.parametrize(
    "images, labels",
    [
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
        ("t10k-images.idx3-ubyte", "t10k-labels.idx1-ubyte"),
        ("my-images", "my-labels"),
        ("qmnist-test-images-idx3-ubyte", "qmnist-test-labels-idx2-int"),
    ],
)
def test_idx_finds_its_labels(ringfeed, tmp_path, images, labels):
    n, want = 300, [(7 * i) % 10 for i in range(300)]
    (tmp_path / images).write_bytes(idx(numpy.zeros((n, 4, 4), ">u1")))
    if "idx2" in labels:
        matrix = numpy.array([[v, 1000 + v, 3] for v in want], ">i4")
        (tmp_path / labels).write_bytes(idx(matrix))
    else:
        (tmp_path / labels).write_bytes(idx(numpy.array(want, ">u1")))
    assert [x["label"] for x in ringfeed.json_lines("samples", tmp_path / images)] == want
    assert [x["label"] for x in ringfeed.json_lines("samples", tmp_path)] == want  # the folder: one shard
    info = ringfeed.json("inspect", tmp_path / labels)
    assert (info["samples"], info["classes"]) == (n, 10)
    assert [x["label"] for x in ringfeed.json_lines("samples", tmp_path / labels)] == want
    (tmp_path / labels).write_bytes(idx(numpy.zeros(n - 1, ">u1")))
    ringfeed.fails("inspect", tmp_path / images, says=[images, labels, n, n - 1])


@pytest.mark.parametrize(
    "content, says",
    [
        (b"\0\0\x08\x03" + struct.pack(">3I", 10, 28, 28) + bytes(7839), "truncated"),
        (b"\0\0\x08\x03" + struct.pack(">3I", 10, 28, 28) + bytes(7841), "follow"),
        (b"\0\0\x08\x03" + struct.pack(">2I", 10, 28), "truncated"),
        (b"\0\0\x0e\x08" + b"\xff" * 32, "truncated"),
        (b"\0\0\x0a\x01" + struct.pack(">I", 1) + b"x", "not an IDX"),
        (b"\0\0\x08\x00", "not an IDX"),
        (b"\0\0\x08\x02" + struct.pack(">2I", 0xFFFFFFFF, 0), "cannot be"),
        (b"", "truncated"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_idx_refused(ringfeed, tmp_path, content, says):
    (tmp_path / "x").write_bytes(content)
    ringfeed.fails("inspect", tmp_path / "x", "--format", "idx", says=[says, tmp_path / "x"])


def test_label_files(ringfeed, tmp_path):
    (tmp_path / "r").write_bytes(bytes(40))
    args = (tmp_path / "r", "--record-bytes", 10)
    labels = tmp_path / "labels"
    cases = [(b"3\n-4\n 5 \n6", [3, -4, 5, 6]), (b"1\r\nx\r\n\r\n2\n", [1, None, None, 2]),
             (b"9223372036854775807\n-9223372036854775808\n0\n1\n", [2**63 - 1, -(2**63), 0, 1])]
    for dtype in ("|i1", "|u1", "<i2", ">i4", "<u4", ">i8", "|b1"):
        array = numpy.array([1, 0, 1, 1], dtype)
        out = io.BytesIO()
        numpy.save(out, array)
        cases.append((out.getvalue(), [1, 0, 1, 1]))
    cases.append((idx(numpy.array([[1, 9], [2, 9], [-3, 9], [4, 9]], ">i4")), [1, 2, -3, 4]))
    for content, want in cases:
        labels.write_bytes(content)
        assert [x["label"] for x in ringfeed.json_lines("samples", *args, "--labels", labels)] == want, content
    bad = [(b"1\n2\n3\n", ["3 labels", "4 samples"]), (b"1\n" * 5, ["5 labels"]), (b"a\nb\nc\nd\n", "no line"),
           (b"\0\1\2", "not a label file"), (b"\x1f\x8b\x08" + bytes(9), "compressed"), (b"9" * 100000 + b"\n" + b"1\n" * 2, "3 labels")]
    for array in (numpy.zeros(4), numpy.array([2**64 - 1] * 4, "<u8"), numpy.zeros((4, 0), "<i4"), numpy.zeros(5, "<i4")):
        out = io.BytesIO()
        numpy.save(out, array)
        bad.append((out.getvalue(), str(labels)))
    for content, says in bad:
        labels.write_bytes(content)
        ringfeed.fails("samples", *args, "--labels", labels, says=says)
    ringfeed.fails("samples", *args, "--labels", tmp_path / "none", says="none")
    ringfeed.fails("samples", *args, "--labels", tmp_path, says="label file")


# ---- raw, files, imagefolder --------------------------------------------------------------------------


def test_raw(ringfeed, tmp_path):
    rng = random.Random(5)
    blobs = [rng.randbytes(16 + 100 * n) for n in (7, 0, 3)]
    for i, blob in enumerate(blobs):
        (tmp_path / f"{i}.bin").write_bytes(blob)
    args = (tmp_path, "--record-bytes", 100, "--header-bytes", 16)
    lines, data = read_all(ringfeed, *args)
    want = [b[at : at + 100] for b in blobs for at in range(16, len(b), 100)]
    assert data == want and all(x["key"] is None for x in lines)
    info = ringfeed.json("inspect", *args)
    assert (info["format"], info["samples"], info["files"], info["min_bytes"], info["max_bytes"]) == ("raw", 10, 3, 100, 100)
    (tmp_path / "3.bin").write_bytes(bytes(17))
    ringfeed.fails("inspect", *args, says=["3.bin", "left over"])
    (tmp_path / "3.bin").write_bytes(bytes(15))
    ringfeed.fails("inspect", *args, says=["3.bin", "header"])
    ringfeed.fails("inspect", tmp_path, "--format", "raw", status=2, says="--record-bytes")
    ringfeed.fails("inspect", tmp_path, "--header-bytes", 4, status=2, says="--record-bytes")
    ringfeed.fails("inspect", tmp_path, "--format", "tar", "--record-bytes", 4, status=2, says="--record-bytes")
    ringfeed.fails("inspect", tmp_path, "--format", "parquet", status=2, says="parquet")
    ringfeed.fails("inspect", "", status=2, says="empty path")


def tree(root, files):
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def test_files_are_sorted_by_path(ringfeed, tmp_path):
    names = ["b", "a/b.x", "a/b/c", "a/b0", "a-b", "z/é", "z/.hidden", ".dot/x", "a b", "README", "index.json", "empty"]
    tree(tmp_path, {n: b"" if n == "empty" else n.encode() for n in names})
    want = sorted((n for n in names if not any(p.startswith(".") for p in n.split("/"))), key=os.fsencode)
    lines, data = read_all(ringfeed, tmp_path)
    assert [x["key"] for x in lines] == want
    assert data == [b"" if n == "empty" else n.encode() for n in want]
    info = ringfeed.json("inspect", tmp_path)
    assert (info["format"], info["samples"], info["min_bytes"]) == ("files", len(want), 0)


def torchvision_order(root, extensions):
    """What torchvision.datasets.ImageFolder does: (path, label) pairs."""
    classes = sorted(e.name for e in os.scandir(root) if e.is_dir())
    found = []
    for label, name in enumerate(classes):
        for folder, _, files in sorted(os.walk(os.path.join(root, name), followlinks=True)):
            for file in sorted(files):
                if extensions is None or file.lower().endswith(extensions):
                    found.append((os.path.relpath(os.path.join(folder, file), root), label))
    return found


IMAGES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def test_imagefolder_is_torchvisions(ringfeed, tmp_path):
    root = tmp_path / "set"
    names = ["cat/1.jpg", "cat/b.jpg", "cat/b/c.JPG", "cat/b0.png", "cat-2/x.jpeg", "cat-2/x.txt", "dog/sub/deep/1.webp",
             "dog/0.tiff", "dog/Thumbs.db", "caption/only.txt", "Zoo/1.jpg", "README.md"]
    tree(root, {n: n.encode() for n in names})
    os.symlink(root / "dog" / "sub", root / "cat" / "linked")
    want = torchvision_order(root, IMAGES)
    lines = ringfeed.json_lines("samples", root)
    assert [(x["key"], x["label"]) for x in lines] == want
    os.unlink(root / "cat" / "linked")
    want = torchvision_order(root, IMAGES)
    os.symlink("..", root / "dog" / "sub" / "up")  # a loop, which torchvision would follow until it fails
    assert [(x["key"], x["label"]) for x in ringfeed.json_lines("samples", root)] == want
    info = ringfeed.json("inspect", root)
    assert info["format"] == "imagefolder"
    assert {c["name"]: c["samples"] for c in info["class_counts"]} == {
        c: sum(n.startswith(c + "/") for n, _ in want) for c in ("Zoo", "cat", "cat-2", "dog")
    }


def test_imagefolder_of_other_files_and_not_one(ringfeed, tmp_path):
    tree(tmp_path / "wav", {"no/1.wav": b"1", "yes/1.wav": b"2", "yes/2.wav": b"3"})
    assert [(x["key"], x["label"]) for x in ringfeed.json_lines("samples", tmp_path / "wav")] == torchvision_order(
        tmp_path / "wav", None
    )
    tree(tmp_path / "wav", {"top.txt": b""})
    assert ringfeed.json("inspect", tmp_path / "wav")["format"] == "files"
    assert ringfeed.json("inspect", tmp_path / "wav", "--format", "imagefolder")["samples"] == 3
    ringfeed.fails("inspect", tmp_path / "wav" / "top.txt", "--format", "imagefolder", says="directory")


# ---- detection --------------------------------------------------------------------------------------


def test_detection_of_directories(ringfeed, tmp_path, make):
    shards = make.tar(n=20, shards=4).path
    tree(shards, {"index.json": b"{}", "README.md": b"hi", "shard-0000.idx": b"0 1 2\n", ".hidden": b"x"})
    info = ringfeed.json("inspect", shards)
    assert (info["format"], info["files"], info["samples"]) == ("tar", 4, 20)
    assert ringfeed.json("inspect", f"{shards}/*.tar")["fingerprint"] == info["fingerprint"]
    tree(shards, {"notes.txt": b"what is this"})
    ringfeed.fails("inspect", shards, says=["mix", "notes.txt", "shard-0000.tar", "--format"])
    os.unlink(shards / "notes.txt")
    numpy.save(shards / "x.npy", numpy.zeros(3))
    ringfeed.fails("inspect", shards, says=["mix", "x.npy", "shard-0000.tar"])
    assert ringfeed.json("inspect", shards, "--format", "files")["samples"] == 8


@pytest.mark.parametrize("paths", [["none"], ["none/*"], ["empty"], ["only-dots"], ["a.tar", "none"]])
def test_nothing_there(ringfeed, tmp_path, paths):
    (tmp_path / "empty").mkdir()
    tree(tmp_path, {"only-dots/.x": b"1"})
    write_tar(tmp_path / "a.tar", [("a", b"1")], tarfile.USTAR_FORMAT)
    full = [tmp_path / p for p in paths]
    ringfeed.fails("inspect", *full, says=str(full[-1]).removesuffix("/*"))


def test_compressed_files_are_refused_with_the_reason(ringfeed, tmp_path):
    import bz2, gzip, lzma, zipfile

    plain = io.BytesIO()
    numpy.save(plain, numpy.zeros(100))
    for name, data in {"gzip": gzip.compress(plain.getvalue()), "xz": lzma.compress(plain.getvalue()),
                       "bzip2": bz2.compress(plain.getvalue()), "zstd": b"\x28\xb5\x2f\xfd" + bytes(20),
                       "lz4": b"\x04\x22\x4d\x18" + bytes(20)}.items():
        (tmp_path / "x").write_bytes(data)
        for args in ((), ("--format", "npy"), ("--format", "tar"), ("--format", "idx")):
            ringfeed.fails("inspect", tmp_path / "x", *args, says=["compressed", name, tmp_path / "x"])
        assert ringfeed.json("inspect", tmp_path / "x", "--format", "files")["samples"] == 1
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as z:
        z.writestr("a", "b")
    ringfeed.fails("inspect", tmp_path / "x.zip", says=["compressed", "zip"])


def test_other_bad_paths(ringfeed, tmp_path):
    (tmp_path / "text").write_text("what is this")
    ringfeed.fails("inspect", tmp_path / "text", says=["no format", "--format"])
    os.mkfifo(tmp_path / "pipe")
    ringfeed.fails("inspect", tmp_path / "pipe", says="neither")
    os.symlink("nowhere", tmp_path / "link")
    ringfeed.fails("inspect", tmp_path, says="leads nowhere")
    assert ringfeed("inspect").returncode == 2
    assert ringfeed("index", tmp_path / "text").returncode == 2
    assert ringfeed("cat", tmp_path / "text").returncode == 2


# ---- index files ------------------------------------------------------------------------------------


def same_listing(ringfeed, a, b):
    assert ringfeed.ok("samples", *a, "--json") == ringfeed.ok("samples", *b, "--json")
    x, y = ringfeed.json("inspect", *a), ringfeed.json("inspect", *b)
    del x["seconds"], y["seconds"]
    assert x == y


@pytest.mark.parametrize("kind", ["raw", "npy", "idx", "tar", "webdataset", "files", "imagefolder"])
def test_index_stands_for_the_dataset(ringfeed, tmp_path, make, kind):
    made = getattr(make, kind)()
    out = tmp_path / "out.rfi"
    told = ringfeed.json("index", made, *made.args, "-o", out)
    same_listing(ringfeed, (made, *made.args), (out,))
    info = ringfeed.json("inspect", out)
    for key in ("format", "files", "samples", "bytes", "min_bytes", "max_bytes", "mean_bytes", "classes", "fingerprint", "fields"):
        assert told[key] == info[key]
    assert told["index_bytes"] == out.stat().st_size and told["seconds"] >= 0
    assert len(info["fingerprint"]) == 32 and info["samples"] == len(made.samples)
    for i in (0, len(made.samples) - 1):
        assert ringfeed.ok("cat", out, "-i", i, text=False) == made.samples[i].data
    ringfeed.fails("cat", out, "-i", len(made.samples), says=str(len(made.samples)))
    ringfeed.fails("inspect", out, "--format", "files", says="index")
    ringfeed.fails("inspect", out, made, says="index")


def test_index_follows_the_dataset(ringfeed, tmp_path, make):
    made = make.webdataset(shards=2)
    home = tmp_path / "home"
    home.mkdir()
    shutil.move(made.path, home / "shards")
    for where in ("in.rfi", "shards/inside.rfi", "beside/far/out.rfi"):
        (home / where).parent.mkdir(parents=True, exist_ok=True)
        ringfeed.ok("index", home / "shards", "-o", home / where)
    before = ringfeed.json("inspect", home / "in.rfi")["fingerprint"]
    shutil.copytree(home, tmp_path / "copy")  # keeps the times
    shutil.move(home, tmp_path / "moved")
    for place in ("copy", "moved"):
        for where in ("in.rfi", "shards/inside.rfi", "beside/far/out.rfi"):
            index = tmp_path / place / where
            lines = ringfeed.json_lines("samples", index)
            assert {str(pathlib.Path(x["file"]).parent) for x in lines} == {str(tmp_path / place / "shards")}
            assert ringfeed.json("inspect", index)["fingerprint"] == before
            assert ringfeed.ok("cat", index, "-i", 3, text=False) == made.samples[3].data
    shutil.move(tmp_path / "moved" / "in.rfi", tmp_path / "alone.rfi")  # the index alone: its data are gone
    ringfeed.fails("inspect", tmp_path / "alone.rfi", says=str(home))


def test_index_moved_alone_finds_the_old_place(ringfeed, tmp_path, make):
    made = make.tar()
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    ringfeed.ok("index", made, "-o", made.path.parent / "a.rfi")
    shutil.move(made.path.parent / "a.rfi", tmp_path / "elsewhere" / "deep" / "a.rfi")
    same_listing(ringfeed, (tmp_path / "elsewhere" / "deep" / "a.rfi",), (made,))


def test_fingerprint_says_what_the_dataset_is(ringfeed, tmp_path, make):
    made = make.tar(n=10)
    one = ringfeed.json("inspect", made)["fingerprint"]
    shutil.copytree(made.path, tmp_path / "copy", copy_function=shutil.copy)  # other place, other times
    assert ringfeed.json("inspect", tmp_path / "copy")["fingerprint"] == one
    os.rename(tmp_path / "copy" / "shard-0000.tar", tmp_path / "copy" / "other.tar")
    assert ringfeed.json("inspect", tmp_path / "copy")["fingerprint"] != one
    (tmp_path / "labels").write_text("1\n" * 10)
    assert ringfeed.json("inspect", made, "--labels", tmp_path / "labels")["fingerprint"] != one
    assert ringfeed.json("inspect", made, "--format", "webdataset")["fingerprint"] != one


def test_stale_index_names_the_file(ringfeed, tmp_path, make):
    made = make.tar(n=20, shards=3)
    index, victim = tmp_path / "a.rfi", made.path / "shard-0001.tar"
    ringfeed.ok("index", made, "-o", index)
    times = victim.stat()
    os.utime(victim, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    ringfeed.fails("inspect", index, says=[str(victim), "modified"])
    os.utime(victim, ns=(times.st_atime_ns, times.st_mtime_ns))
    ringfeed.ok("inspect", index)
    with open(victim, "ab") as f:
        f.write(b"x")
    os.utime(victim, ns=(times.st_atime_ns, times.st_mtime_ns))
    ringfeed.fails("samples", index, says=[str(victim), "bytes"])
    os.unlink(victim)
    ringfeed.fails("cat", index, "-i", 0, says=str(victim))


def test_damaged_index_is_one_clear_error(ringfeed, tmp_path, make):
    made = make.webdataset(n=20)
    index, bad = tmp_path / "a.rfi", tmp_path / "bad.rfi"
    ringfeed.ok("index", made, "-o", index)
    good = index.read_bytes()
    for cut in (0, 1, 7, 8, 100, 4095, 4096, 12287, 12288, len(good) // 2, len(good) - 1):
        bad.write_bytes(good[:cut])
        ringfeed.fails("inspect", bad, says=str(bad))
    bad.write_bytes(good + b"x")
    ringfeed.fails("inspect", bad, says="appended")
    rng = random.Random(9)
    for at in [8, 12, 16, 24, 100, 500, *(rng.randrange(len(good)) for _ in range(20))]:
        bad.write_bytes(good[:at] + bytes([good[at] ^ (1 << rng.randrange(8))]) + good[at + 1 :])
        for verb in ("inspect", "samples"):
            done = ringfeed(verb, bad)
            assert done.returncode in (0, 1) and (done.returncode == 0 or str(bad) in done.stderr or "keys" in done.stderr)
            assert done.returncode or done.stdout


def test_index_is_written_atomically(ringfeed, tmp_path, make):
    made = make.files()
    ringfeed.ok("index", made, "-o", made.path / "inside.rfi")  # among the files it describes
    first = ringfeed.json("inspect", made.path / "inside.rfi")
    ringfeed.ok("index", made, "-o", made.path / "inside.rfi")
    assert ringfeed.json("inspect", made.path / "inside.rfi")["fingerprint"] == first["fingerprint"]
    assert first["samples"] == len(made.samples)
    assert not [p for p in made.path.iterdir() if p.name.startswith(".")]
    for target in (made.path, tmp_path / "no" / "folder.rfi", "/dev/null", "/proc/a.rfi"):
        ringfeed.fails("index", made, "-o", target, says=str(target).rsplit("/", 1)[0])


def test_samples_window(ringfeed, make):
    made = make.raw(n=50, record_bytes=8)
    every = ringfeed.ok("samples", made, *made.args).splitlines()
    assert len(every) == 50 and every[3].split("\t") == ["3", str(made), "24", "8", "-", "-"]
    assert ringfeed.ok("samples", made, *made.args, "--from", 10, "--count", 5).splitlines() == every[10:15]
    assert ringfeed.ok("samples", made, *made.args, "--from", 48).splitlines() == every[48:]
    assert ringfeed.ok("samples", made, *made.args, "--from", 50) == ""
    assert ringfeed.ok("samples", made, *made.args, "--from", 2**63) == ""
