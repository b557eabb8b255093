"""The public header compiles alone, without warnings, as C and as C++, with gcc and with clang.

    check_header.py INCLUDE_DIR
"""

import subprocess
import sys

WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wundef", "-Wconversion", "-Werror"]
COMPILERS = [
    ["gcc", "-x", "c", "-std=c99", "-Wstrict-prototypes"],
    ["gcc", "-x", "c", "-std=gnu17", "-Wstrict-prototypes", "-Wc++-compat"],
    ["g++", "-x", "c++", "-std=c++11", "-Wold-style-cast"],
    ["g++", "-x", "c++", "-std=c++20"],
    ["clang", "-x", "c", "-std=c11", "-Wstrict-prototypes"],
    ["clang++", "-x", "c++", "-std=c++17"],
]
SOURCE = "#include <ringfeed/ringfeed.h>\n#include <ringfeed/ringfeed.h>\nint main(void) { return RF_OK; }\n"

failed = 0
for compiler in COMPILERS:
    command = [*compiler, *WARNINGS, f"-I{sys.argv[1]}", "-fsyntax-only", "-"]
    done = subprocess.run(command, input=SOURCE, text=True, capture_output=True)
    print(f"{'ok    ' if done.returncode == 0 else 'FAILED'} {' '.join(command)}\n{done.stderr}", end="")
    failed |= done.returncode != 0
sys.exit(failed)
