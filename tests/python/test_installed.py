"""The package where it was installed: it finds its extension and its command by itself."""

import os
import pathlib
import subprocess

import pytest
from conftest import cli

USE = """
import os, numpy, ringfeed
with ringfeed.Loader(numpy.arange(100), 10) as loader:
    assert sum(int(b.data.sum()) for b in loader) == 4950
    print(ringfeed.__file__, os.readlink(f"/proc/{loader._run.server.pid}/exe"))
"""


def run(*argv, **options):
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=300, check=False, **options)
    assert done.returncode == 0, f"{argv}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def use(python, directory, **environment):
    """Where the package and its command are."""
    env = {k: v for k, v in os.environ.items() if k not in ("RINGFEED", "PYTHONPATH")}
    return run(python, "-c", USE, cwd=directory, env={**env, **environment}).split()


def test_installed_by_meson(tmp_path):
    build = pathlib.Path(os.environ["RINGFEED"]).resolve().parent.parent
    run("meson", "install", "-C", build, "--no-rebuild", "--quiet", "--destdir", tmp_path)
    package = next(tmp_path.rglob("ringfeed/__init__.py")).parent
    files = {p.name for p in package.iterdir()}
    assert {"_core.abi3.so", "_core.pyi", "py.typed"} <= files
    sources = {p.name for p in (cli.REPO / "lib" / "python" / "ringfeed").iterdir()} - {"meson.build"}
    assert sources <= files
    found, command = use("/usr/bin/python3", tmp_path, PYTHONPATH=str(package.parent))
    assert pathlib.Path(found).parent == package and pathlib.Path(command).is_relative_to(tmp_path)


@pytest.mark.skipif("RF_WHEEL" not in os.environ, reason="builds everything once more: tools/test wheel")
def test_wheel(tmp_path):
    run("/usr/bin/python3", "-m", "pip", "wheel", "--no-build-isolation", "--no-index", "--no-deps", "-w", tmp_path, cli.REPO)
    (wheel,) = tmp_path.glob("*.whl")
    assert "-abi3-" in wheel.name
    run("/usr/bin/python3", "-m", "venv", "--system-site-packages", tmp_path / "environment")
    python = tmp_path / "environment" / "bin" / "python"
    run(python, "-m", "pip", "install", "--no-index", "--no-deps", wheel)
    for path in use(python, tmp_path):
        assert pathlib.Path(path).is_relative_to(tmp_path / "environment")
