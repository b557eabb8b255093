"""Include edges between the layers of lib/: a file may include its own layer and what is below it.

    check_layers.py LIB      checks the tree
    check_layers.py --self   checks that the check can fail
"""

import pathlib
import re
import sys
import tempfile

# Layers on one line are siblings: they do not know each other.
LAYERS = [
    ["base"],
    ["segment"],
    ["dataset", "order", "ring", "reader", "topology"],
    ["plan"],
    ["run"],
    ["checkpoint"],
    ["worker", "attach"],
    ["coordinator"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
BINDINGS = {"python"}  # know the public header only
INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)


def edges(lib):
    """(file, layer, included layer) of every include of a layer's header."""
    for path in sorted(lib.rglob("*.[ch]")):
        layer = path.relative_to(lib).parts[0]
        for quoted, angled in INCLUDE.findall(path.read_text()):
            target = (quoted or angled).split("/")[0]
            if layer in BINDINGS and quoted and not (path.parent / quoted).exists():
                yield path, layer, quoted
            elif "/" in quoted and ".." in quoted.split("/"):
                yield path, layer, ".."
            elif "/" in (quoted or angled) and target in LEVEL and (lib / (quoted or angled)).exists():
                yield path, layer, target
            elif quoted and "/" in quoted and not (path.parent / quoted).exists():
                yield path, layer, quoted
            elif quoted and "/" not in quoted and not (path.parent / quoted).exists():
                yield path, layer, quoted


def problems(lib):
    folders = {p.name for p in lib.iterdir() if p.is_dir()}
    found = [f"lib/{name}: a folder that is no layer" for name in sorted(folders - set(LEVEL) - BINDINGS)]
    for path, layer, target in edges(lib):
        if target not in LEVEL:
            found.append(f"{path}: includes {target}, which is in no layer")
        elif layer in LEVEL and target != layer and LEVEL[target] >= LEVEL[layer]:
            found.append(f"{path}: {layer} includes {target}, which is not below it")
    return found


def self_check():
    """Each kind of wrong edge must be found, and a right one must not."""
    cases = {
        "order/a.c": ('#include "base/b.h"', 0),
        "order/b.c": ('#include "plan/p.h"', 1),
        "order/c.c": ('#include "ring/r.h"', 1),
        "order/d.c": ('#include "../ring/r.h"', 1),
        "base/e.c": ("#include <segment/s.h>", 1),
        "base/f.c": ('#include "nowhere.h"', 1),
        "python/core/g.c": ('#include "base/b.h"', 1),
        "python/core/h.c": ("#include <ringfeed/ringfeed.h>", 0),
    }
    for name, (text, expected) in cases.items():
        with tempfile.TemporaryDirectory() as directory:
            lib = pathlib.Path(directory)
            for header in ("base/b.h", "plan/p.h", "ring/r.h", "segment/s.h"):
                (lib / header).parent.mkdir(exist_ok=True)
                (lib / header).write_text("")
            (lib / name).parent.mkdir(parents=True, exist_ok=True)
            (lib / name).write_text(text + "\n")
            found = problems(lib)
            if len(found) != expected:
                sys.exit(f"{name}: {text}: {found}")
    print(f"{len(cases)} cases")


def main():
    if sys.argv[1] == "--self":
        return self_check()
    found = problems(pathlib.Path(sys.argv[1]))
    print("\n".join(found) or f"{len(LEVEL)} layers, every include points down")
    return sys.exit(1 if found else 0)


main()
