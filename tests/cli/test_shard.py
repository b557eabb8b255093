"""Several servers: four instances of two ranks act as four servers and together deliver everything once."""

import pytest

from delivery import key, order_lines, trainers

WORLD, HELD = 8, 2

LAUNCHERS = {
    "flags": lambda s: {},
    "torchrun": lambda s: {"WORLD_SIZE": 8, "RANK": 2 * s, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": s},
    "slurm": lambda s: {"SLURM_NTASKS": 8, "SLURM_NTASKS_PER_NODE": 2, "SLURM_NODEID": s, "SLURM_PROCID": 2 * s,
                        "SLURM_LOCALID": 0},
    "open mpi": lambda s: {"OMPI_COMM_WORLD_SIZE": 8, "OMPI_COMM_WORLD_LOCAL_SIZE": 2, "OMPI_COMM_WORLD_RANK": 2 * s + 1,
                           "OMPI_COMM_WORLD_LOCAL_RANK": 1},
    "mpich": lambda s: {"PMI_SIZE": 8, "PMI_RANK": 2 * s, "MPI_LOCALNRANKS": 2, "MPI_LOCALRANKID": 0},
}


@pytest.mark.parametrize("strategy", ["round-robin", "contiguous", "hash", "stratified"])
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_four_servers_deliver_everything_once(ringfeed, new_name, make, launcher, strategy):
    made = make.webdataset(n=101, shards=3)
    order = ("--batch", 4, "--strategy", strategy, "--shuffle", "full", "--seed", 3, "--epochs", 2)
    serves, run = [], []
    for server in range(4):
        env = {k: str(v) for k, v in LAUNCHERS[launcher](server).items()}
        flags = () if env else ("--world-size", WORLD, "--ranks", HELD, "--first-rank", HELD * server)
        name = new_name()
        serves.append(ringfeed.serve(made.path, name, *order, *flags, "--workers", 2, env=env))
        stat = ringfeed.json("stat", name)
        assert (stat["world_size"], stat["first_rank"]) == (WORLD, HELD * server)
        assert [r["rank"] for r in stat["ranks"]] == [HELD * server, HELD * server + 1]
        run += trainers(ringfeed, name, (HELD * server, HELD * server + 1))
    for t in run:
        t.ok()
    assert [s.wait() for s in serves] == [0] * 4
    lines = sorted((line for t in run for line in t.lines()), key=key)
    assert lines == order_lines(ringfeed, made.path, "--world-size", WORLD, *order)
    for epoch in range(2):
        assert sorted(int(l.split()[4]) for l in lines if l.startswith(f"{epoch} ")) == list(range(101))
    ringfeed.ok("verify", "--dataset", made.path, "--world-size", WORLD, *order, *(t.ids for t in run))


def test_a_rank_of_another_server_is_refused(ringfeed, run_name, make):
    made = make.raw()
    ringfeed.serve(made.path, run_name, *made.args, "--world-size", 8, "--ranks", 2, "--first-rank", 4)
    for rank in (0, 3, 6, 7, 1000000):
        ringfeed.fails("attach", run_name, "--rank", rank, says=[f"no rank {rank} ", "ranks 4 to 5"])
