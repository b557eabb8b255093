"""What is installed: header, library, pkg-config, man pages, completion, and README's program built against it,
as C and as C++, and run on a live ring."""

import json
import os
import pathlib
import re
import shutil
import subprocess

import pytest

from conftest import REPO, clean_environment, find_command

TIMEOUT = 120


def run(*argv, **options):
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=TIMEOUT, check=False, **options)
    assert done.returncode == 0, f"{argv}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The tree that `meson install` makes of the build under test."""
    build = pathlib.Path(os.environ.get("RINGFEED_BUILD", find_command().parents[1]))
    root = tmp_path_factory.mktemp("installed")
    run("meson", "install", "-C", build, "--no-rebuild", "--quiet", "--destdir", root)
    return root


def prefix(installed):
    return next(p.parents[1] for p in installed.rglob("bin/ringfeed"))


def library_directory(installed):
    return next(installed.rglob("libringfeed.so")).parent


def flags(installed):
    pc = next(installed.rglob("ringfeed.pc")).parent
    env = {**os.environ, "PKG_CONFIG_LIBDIR": str(pc), "PKG_CONFIG_SYSROOT_DIR": str(installed)}
    return run("pkg-config", "--cflags", "--libs", "ringfeed", env=env).split()


def readme_program():
    programs = re.findall(r"```c\n(.*?)```", (REPO / "README.md").read_text(), re.DOTALL)
    assert len(programs) == 1, "README.md shows one C program"
    return programs[0]


def sanitizer_flags(installed):
    """A sanitized library needs its runtime in the program as well."""
    symbols = run("nm", "-D", library_directory(installed) / "libringfeed.so")
    return ["-fsanitize=address,undefined"] if "__asan_init" in symbols else []


def build_readme(installed, directory, language):
    sanitize = sanitizer_flags(installed)
    compiler = {"c": "clang" if sanitize else "gcc", "c++": "clang++" if sanitize else "g++"}[language]
    source = directory / ("trainer.c" if language == "c" else "trainer.cc")
    source.write_text(readme_program())
    program = directory / f"trainer-{language}"
    run(compiler, "-Wall", "-Wextra", "-Werror", *sanitize, source, *flags(installed),
        f"-Wl,-rpath,{library_directory(installed)}", "-o", program)
    return program


@pytest.mark.parametrize("language", ["c", "c++"])
def test_readme_program_takes_every_sample(installed, ringfeed, make, run_name, tmp_path, language):
    program = build_readme(installed, tmp_path, language)
    data = make.files(n=37, sizes=(0, 5000))
    server = ringfeed.serve(data.path, run_name, "--batch", 4, "--shuffle", "full", "--epochs", 3)
    out = run(program, run_name, "0", env=clean_environment())
    total = 3 * sum(sum(s.data) for s in data.samples)
    assert out == f"{3 * 37} samples, sum {total}\n"
    assert server.wait() == 0


def test_readme_program_says_why_it_cannot_attach(installed, run_name, tmp_path, ringfeed, make):
    program = build_readme(installed, tmp_path, "c")
    server = ringfeed.serve(make.files(n=3).path, run_name)
    done = subprocess.run([program, run_name, "7"], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 1
    assert "7" in done.stderr and done.stderr.count("\n") == 1
    server.end()


def test_installed_command_runs(installed):
    command = prefix(installed) / "bin" / "ringfeed"
    assert re.fullmatch(r"ringfeed \d+\.\d+\.\d+\n", run(command, "--version"))


def test_installed_bench_finds_other_loaders(installed, make, run_name):
    made = make.raw(n=50)
    command = [prefix(installed) / "bin" / "ringfeed", "bench", made, *made.args, "--name", run_name, "--runs", 1]
    rows = json.loads(run(*command, "--compare", "c-pread,gather", "--json", env=clean_environment()))["loaders"]
    assert [r["loader"] for r in rows] == ["ringfeed", "c-pread", "gather"]
    assert "not measured" not in [r["version"] for r in rows]


def test_version_is_one_everywhere(installed, ringfeed):
    header = next(installed.rglob("ringfeed.h")).read_text()
    version = ".".join(re.search(rf"RF_VERSION_{part} (\d+)", header).group(1) for part in ("MAJOR", "MINOR", "PATCH"))
    pc = next(installed.rglob("ringfeed.pc")).read_text()
    assert f"Version: {version}\n" in pc
    assert ringfeed.ok("--version") == f"ringfeed {version}\n"


def listed_verbs(ringfeed):
    lines = ringfeed.ok("--help").partition("Verbs:\n")[2].partition("\n\n")[0].splitlines()
    verbs = [line.split()[0] for line in lines]
    assert verbs
    return verbs


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_every_verb_has_a_man_page_without_errors(installed, ringfeed):
    pages = {p.name: p for p in installed.rglob("man1/*.1")}
    verbs = listed_verbs(ringfeed)
    assert sorted(pages) == sorted(["ringfeed.1"] + [f"ringfeed-{verb}.1" for verb in verbs])
    for page in pages.values():
        done = subprocess.run(["groff", "-man", "-Tutf8", "-Kutf8", "-ww", page], capture_output=True, text=True, timeout=TIMEOUT)
        assert done.returncode == 0 and done.stderr == "", f"{page.name}: {done.stderr}"
    for verb in verbs:
        text = pages[f"ringfeed-{verb}.1"].read_text().replace("\\-", "-")
        for option in re.findall(r"^\s+(--[a-z-]+)", ringfeed.ok(verb, "--help"), re.MULTILINE):
            assert f".B {option}" in text, f"ringfeed-{verb}.1 lacks {option}"


COMPLETE = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_ringfeed
printf '%s\\n' "${COMPREPLY[@]}"
"""


def complete(installed, *words):
    script = next(installed.rglob("completions/ringfeed.bash"))
    return run("bash", "-c", COMPLETE, "complete", script, "ringfeed", *words).split()


def test_completion_knows_verbs_options_and_choices(installed, ringfeed):
    assert complete(installed, "insp") == ["inspect"]
    assert set(listed_verbs(ringfeed)) <= set(complete(installed, ""))
    assert complete(installed, "order", "--world") == ["--world-size"]
    assert complete(installed, "order", "--shuffle", "") == ["none", "full", "block"]


def test_completion_knows_running_names(installed, ringfeed, make, run_name):
    server = ringfeed.serve(make.files(n=2).path, run_name)
    assert complete(installed, "stat", run_name[:-1]).count(run_name) == 1
    server.end()
