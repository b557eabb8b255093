"""The command around its verbs: help, wrong usage, where world size and ranks come from, closed files."""

import json
import os
import re
import subprocess

import pytest

from conftest import REPO, clean_environment, die_with_parent, find_command

VERBS = ["index", "inspect", "cat", "samples", "order", "serve", "attach", "bench", "stat", "verify", "plan", "ls", "gc"]


def test_lists_every_verb_and_each_has_help(ringfeed):
    top = ringfeed.ok("--help")
    assert re.findall(r"^  (\w+)  ", top, re.MULTILINE) == VERBS
    for verb in VERBS:
        text = ringfeed.ok(verb, "--help")
        assert text.startswith(f"Usage: ringfeed {verb}")
        assert ringfeed.ok("help", verb) == text
        assert ringfeed.ok(verb, "-h") == text
        assert max(len(line) for line in text.splitlines()) <= 110


def test_verbs_that_print_facts_take_json(ringfeed):
    for verb in set(VERBS) - {"cat"}:
        assert "--json" in ringfeed.ok(verb, "--help"), verb


def test_nothing_said_is_wrong_usage(ringfeed):
    done = ringfeed()
    assert done.returncode == 2 and done.stdout == "" and "Usage: ringfeed VERB" in done.stderr


@pytest.mark.parametrize(
    "args, says",
    [
        (("frobnicate",), "frobnicate: no such verb"),
        (("inspct",), "Did you mean inspect?"),
        (("help", "frobnicate"), "no such verb"),
        (("--frobnicate",), "no such verb"),
        (("order", "--samples", "5", "--btach", "2"), "Did you mean --batch?"),
        (("order", "--samples", "5", "--batch", "0"), "--batch 0: must be at least 1"),
        (("order", "--samples", "5", "--batch"), "--batch: needs a value"),
        (("order", "--samples", "-5"), "--samples -5"),
        (("order", "--samples", "1e6"), "--samples 1e6"),
        (("order", "--samples", "99999999999999999999"), "too large"),
        (("order", "--samples", "5", "--world-size", "0"), "--world-size 0"),
        (("order", "--samples", "5", "--world-size", "1000001"), "at most 1000000"),
        (("order", "--samples", "5", "--shuffle", "some"), "is none of none, full, block"),
        (("order", "--samples", "5", "--world-size", "4", "--first-rank", "4"), "--first-rank"),
        (("order", "--samples", "5", "--world-size", "4", "--first-rank", "3", "--ranks", "2"), "--ranks"),
        (("order",), "DATASET"),
        (("inspect",), "DATASET"),
        (("serve",), ""),
        (("attach",), ""),
        (("stat",), ""),
        (("cat", REPO / "README.md"), "-i"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(ringfeed, args, says):
    assert "--help" in ringfeed.fails(*args, status=2, says=says)


@pytest.mark.parametrize("verb", [["serve", "--name", "unused"], ["plan"]])
@pytest.mark.parametrize("option", ["--epoch", "--samples"])
def test_verbs_that_deliver_refuse_what_only_order_knows(ringfeed, make, verb, option):
    """Taken and ignored, they would deliver something else than was asked for."""
    made = make.raw(n=8)
    ringfeed.fails(*verb, made.path, *made.args, option, 3, status=2, says=f"{option}: no such option")
    assert f" {option} " not in ringfeed.ok(verb[0], "--help")


@pytest.mark.parametrize("verb", [["serve", "--name", "unused"], ["plan"]])
def test_prefetch_is_said_once(ringfeed, make, verb):
    made = make.raw(n=8)
    ringfeed.fails(*verb, made.path, *made.args, "--prefetch", 3, "--prefetch-samples", 9, status=2, says="both")


def test_as_many_workers_are_planned_as_can_be_served(ringfeed, make):
    made = make.raw(n=8)
    assert len(ringfeed.json("plan", made.path, *made.args, "--workers", 64)["workers"]) == 64
    ringfeed.fails("plan", made.path, *made.args, "--workers", 65, status=2, says="at most 64")


@pytest.mark.parametrize("verb", ["stat", "attach"])
def test_a_name_that_cannot_be_one_is_wrong_usage(ringfeed, verb):
    ringfeed.fails(verb, "a/b", *(["--rank", 0] if verb == "attach" else []), status=2, says="wrong name 'a/b'")


def on_terminal(*args):
    """What the command writes on a stderr that is a terminal, its stdout being none."""
    import pty

    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [find_command(), *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs,
            env=clean_environment(), preexec_fn=die_with_parent,
        )
    finally:
        os.close(theirs)
    said = b""
    try:
        while True:
            try:
                said += os.read(ours, 65536)
            except OSError:  # EIO: the other end is closed
                break
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return said.decode()


def test_progress_has_a_bar_a_rate_and_the_time_left_on_a_terminal(ringfeed, run_name, make, tmp_path):
    shown = re.compile(r"\[[#.]{24}\] +\d+%  \d+ (lines|batches|MiB)  \d+/s  \d+:\d\d left")
    said = on_terminal("order", "--samples", 30_000_000, "--shuffle", "full")
    assert shown.search(said) and said.endswith("\r\x1b[K"), said[-300:]
    made = make.raw(n=150)
    serve = ringfeed.serve(made.path, run_name, *made.args, "--workers", 1)
    said = on_terminal("attach", run_name, "--rank", 0, "--step-ms", 10)
    assert shown.search(said) and said.endswith("\r\x1b[K"), said[-300:]
    assert serve.wait() == 0
    assert not serve.stderr  # no terminal, no progress


def test_control_characters_of_arguments_do_not_reach_the_terminal(ringfeed, tmp_path):
    stderr = ringfeed.fails("inspect", tmp_path / "evil\x1b[2J\nname", status=1)
    assert "\x1b" not in stderr and "\\x1b" in stderr


# What `order` prints says which ranks are held here: N = 2 W samples, so that rank r has 2 lines.
LAUNCHERS = {
    "nothing": ({}, (), 1, [0]),
    "world flag": ({}, ("--world-size", 4), 4, [0, 1, 2, 3]),
    "ranks flag": ({}, ("--ranks", 2), 2, [0, 1]),
    "first flag": ({}, ("--first-rank", 2), 3, [2]),
    "ranks and first": ({}, ("--ranks", 2, "--first-rank", 2), 4, [2, 3]),
    "world and first": ({}, ("--world-size", 4, "--first-rank", 3), 4, [3]),
    "torchrun": (
        {"WORLD_SIZE": 6, "RANK": 4, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 3, "GROUP_RANK": 1}, (), 6, [3, 4, 5],
    ),
    "torchrun without ranks": ({"WORLD_SIZE": 6, "LOCAL_WORLD_SIZE": 3, "GROUP_RANK": 1}, (), 6, [3, 4, 5]),
    "slurm": (
        {"SLURM_NTASKS": 8, "SLURM_NTASKS_PER_NODE": 2, "SLURM_NODEID": 1, "SLURM_PROCID": 3, "SLURM_LOCALID": 1},
        (), 8, [2, 3],
    ),
    "slurm, uneven nodes": (
        {"SLURM_NTASKS": 5, "SLURM_TASKS_PER_NODE": "2,1(x3)", "SLURM_NODEID": 2, "SLURM_PROCID": 3, "SLURM_LOCALID": 0},
        (), 5, [3],
    ),
    "open mpi": (
        {"OMPI_COMM_WORLD_SIZE": 4, "OMPI_COMM_WORLD_LOCAL_SIZE": 2, "OMPI_COMM_WORLD_RANK": 3,
         "OMPI_COMM_WORLD_LOCAL_RANK": 1}, (), 4, [2, 3],
    ),
    "mpich": ({"PMI_SIZE": 4, "PMI_RANK": 2, "MPI_LOCALNRANKS": 2, "MPI_LOCALRANKID": 0}, (), 4, [2, 3]),
    "flags beat the launcher": (
        {"WORLD_SIZE": 6, "RANK": 4, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 3},
        ("--world-size", 9, "--ranks", 2, "--first-rank", 1), 9, [1, 2],
    ),
    "one flag beats its part": (
        {"WORLD_SIZE": 6, "RANK": 4, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 3}, ("--ranks", 1), 6, [3],
    ),
    "garbage that a flag replaces": ({"WORLD_SIZE": "x"}, ("--world-size", 2), 2, [0, 1]),
}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_world_and_ranks_follow_flags_then_launcher_then_defaults(ringfeed, name):
    env, flags, world, ranks = LAUNCHERS[name]
    samples = 2 * world
    out = ringfeed.ok("order", "--samples", samples, *flags, env={k: str(v) for k, v in env.items()})
    rows = [tuple(map(int, line.split()[:5])) for line in out.splitlines()]
    assert sorted({row[1] for row in rows}) == ranks
    assert [row[4] for row in rows] == [r + i * world for r in ranks for i in (0, 1)]


@pytest.mark.parametrize(
    "env, flags, says",
    [
        ({"WORLD_SIZE": "x"}, (), "WORLD_SIZE=x"),
        ({"WORLD_SIZE": "4", "RANK": "1"}, (), "LOCAL_RANK"),
        ({"SLURM_NTASKS": "4", "SLURM_NODEID": "0", "SLURM_TASKS_PER_NODE": "junk"}, (), "SLURM_TASKS_PER_NODE=junk"),
        ({"PMI_SIZE": "4", "PMI_RANK": "-1", "MPI_LOCALRANKID": "0"}, (), "PMI_RANK=-1"),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "8"}, (), "OMPI_COMM_WORLD_LOCAL_SIZE"),
        ({"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}, ("--first-rank", "1"), "--first-rank"),
    ],
)
def test_a_wrong_environment_is_refused_by_name(ringfeed, env, flags, says):
    ringfeed.fails("order", "--samples", 8, *flags, env=env, status=2, says=says)


def test_a_full_disk_is_a_failure(ringfeed):
    with open("/dev/full", "w", encoding="ascii") as full:
        for args in (["order", "--samples", "100000"], ["--help"], ["ls", "--json"]):
            done = subprocess.run(
                [find_command(), *args], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
                env=clean_environment(),
            )
            assert done.returncode == 1, args
            assert done.stderr.startswith("ringfeed: "), args


def test_a_reader_that_leaves_does_not_hang_the_command():
    """`ringfeed order … | head`: the command ends by SIGPIPE or by a failure, and at once."""
    process = subprocess.Popen(
        [find_command(), "order", "--samples", "10000000000"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=clean_environment(),
    )
    try:
        assert process.stdout.readline() == b"0 0 0 0 0 -\n"
        process.stdout.close()
        assert process.wait(30) != 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_closed_standard_files_do_no_harm(ringfeed, closed):
    """A run whose stdout is closed must not write its messages into a file that took its number."""
    pid = os.fork()
    if pid == 0:
        try:
            null = os.open("/dev/null", os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            os.close(closed)
            os.execve(find_command(), ["ringfeed", "order", "--samples", "3"], clean_environment())
        finally:
            os._exit(99)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == (1 if closed == 1 else 0)


def test_json_output_is_json_for_names_that_are_no_text(ringfeed, tmp_path):
    directory = tmp_path / "odd"
    directory.mkdir()
    with open(os.fsencode(directory) + b"/bad-\xff-name.dat", "wb") as f:
        f.write(b"x")
    line = ringfeed.ok("samples", directory, "--json")
    assert "bad-" in json.loads(line)["file"]
