"""check_fail_points.py SOURCE-ROOT BINARY on|off CC...: fail points are nothing at all where they are not asked for.

Each source with a fail point is compiled twice without the option: as it is, and with the fail points blanked out. The
objects must be the same bytes. Points in the sources and in the table are the same. BINARY (of this build) says their
names only when the option is on."""

import pathlib
import re
import subprocess
import sys
import tempfile

POINT = re.compile(r'RFI_FAIL_POINT\("([^"]*)"\)')


def compiled(cc, root, text, place, directory):
    """The object's bytes. The file has the same name both times: it stands in assertions."""
    source, target = directory / place.name, directory / "out.o"
    source.write_text(text)
    subprocess.run([*cc, "-std=gnu17", "-D_GNU_SOURCE", "-O1", "-c", f"-I{root / 'include'}", f"-I{root / 'lib'}",
                    source, "-o", target], check=True)
    return target.read_bytes()


def main():
    root, binary, option, cc = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3], sys.argv[4:]
    sources = {p: p.read_text() for p in sorted(root.glob("lib/*/*.c")) if POINT.search(p.read_text())}
    used = [name for text in sources.values() for name in POINT.findall(text)]
    table = re.search(r"names\[\] = \{(.*?)\};", (root / "lib/base/failpoint.c").read_text(), re.DOTALL)[1]
    names = re.findall(r'"([^"]*)"', table)
    assert sorted(used) == sorted(names) and len(set(used)) == len(used), f"{sorted(used)}\nin the table: {sorted(names)}"
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        for place, text in sources.items():
            blank = POINT.sub("((void)0)", text)
            plain = compiled(cc, root, blank, place, directory)
            assert compiled(cc, root, text, place, directory) == plain, f"{place}: a fail point leaves code"
        armed = compiled([*cc, "-DRFI_FAIL_POINTS"], root, text, place, directory)
        assert armed != plain, f"{place}: the comparison sees nothing"
    data = binary.read_bytes()
    for word in (b"RINGFEED_FAIL_POINTS", b"RINGFEED_FAIL_LOG", b"RINGFEED_TEST_NO_DRAIN", b"publish-before", b"checkpoint-prev"):
        assert (word in data) == (option == "on"), f"{word} in {binary}, fail points are {option}"
    print(f"{len(names)} fail points in {len(sources)} files, {option} in {binary}")


main()
