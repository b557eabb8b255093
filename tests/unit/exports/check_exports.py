"""The library exports exactly the RF_PUBLIC functions of the header, and the symbol map says so too.

    check_exports.py HEADER MAP LIBRARY
"""

import pathlib
import re
import subprocess
import sys


def header_names(path):
    text = path.read_text()
    names = re.findall(r"^RF_PUBLIC\b[^;]*?\b(rf_\w+)\s*\(", text, re.MULTILINE)
    assert len(names) == len(re.findall(r"^RF_PUBLIC\b", text, re.MULTILINE)), "a declaration was not understood"
    return set(names)


def map_names(path):
    text = re.sub(r"#.*", "", path.read_text())
    exported = re.search(r"global:(.*?)local:\s*\*;", text, re.DOTALL).group(1)
    return set(re.findall(r"(\w+);", exported))


def library_names(path):
    out = subprocess.run(["nm", "-D", "--defined-only", path], check=True, capture_output=True, text=True).stdout
    rows = [line.split() for line in out.splitlines()]
    return {row[-1].split("@")[0] for row in rows if row[-2] != "A"}


def compare(what, names, expected):
    """Names that are missing and that are too many, as lines."""
    return [f"{what} lacks {n}" for n in sorted(expected - names)] + [f"{what} has also {n}" for n in sorted(names - expected)]


header, symbol_map, library = map(pathlib.Path, sys.argv[1:4])
public = header_names(header)
found = compare("ringfeed.map", map_names(symbol_map), public) + compare("the library", library_names(library), public)
print("\n".join(found) or f"{len(public)} functions")
sys.exit(1 if found or not public else 0)
