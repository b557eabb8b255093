"""Several ranks: who starts the loader, by which name the others find it, and what is left for another world."""

import json

import pytest
import ringfeed as rf
from ringfeed import _launch

READ = """
    import json, sys, numpy, ringfeed as rf
    path, options, plan = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
    with rf.Loader(path, 4, **options) as loader:
        if plan.get("state"):
            loader.load_state_dict(plan["state"])
        out = {"len": len(loader), "first": loader.state_dict(), "epochs": []}
        for count in plan["batches"]:
            got = []
            for batch in loader:
                got.append([batch.ids.tolist(), batch.flags.tolist()])
                if len(got) == count:
                    break
            out["epochs"].append(got)
        out["state"] = loader.state_dict()
    print(json.dumps(out))
"""


def read(script, made, options, batches, state=None, world=4, local=None):
    plan = json.dumps({"batches": batches, "state": state})
    return [json.loads(text) for text in script.ranks(READ, made.path, json.dumps(options), plan, world=world, local=local)]


@pytest.mark.parametrize("options,flags", [({"shuffle": True}, ("--tail", "pad")), ({"shuffle": True, "drop_last": True}, ("--tail", "drop"))])
def test_four_ranks(script, make, order, options, flags):
    made = make.npy(90)
    got = read(script, made, options, [None, None])
    for rank, one in enumerate(got):
        expected = order(made, "--batch", 4, "--world-size", 4, "--shuffle", "full", *flags, rank=rank, epochs=2)
        assert one["len"] == len(expected[0])
        assert [[ids for ids, _ in epoch] for epoch in one["epochs"]] == [expected[0], expected[1]]
        assert one["state"] == got[0]["state"]


def test_states_are_equal_and_go_on(script, make, order):
    made = make.npy(90)
    got = read(script, made, {"shuffle": True}, [None, 3])
    state = got[0]["state"]
    assert all(one["state"] == state for one in got) and (state["epoch"], state["step"]) == (1, 3)
    more = read(script, made, {"shuffle": True}, [None, None], state)
    for rank, one in enumerate(more):
        expected = order(made, "--batch", 4, "--world-size", 4, "--shuffle", "full", "--tail", "pad", rank=rank, epochs=3)
        assert one["first"] == state
        assert [[ids for ids, _ in epoch] for epoch in one["epochs"]] == [expected[1][3:], expected[2]]


@pytest.mark.parametrize("worlds", [(4, 2), (2, 3), (4, 2, 3), (2, 1), (1, 2)])
def test_another_world_gets_the_rest(script, make, worlds):
    """Everything of the epoch exactly once over all worlds, padding apart, and whole epochs from then on."""
    made = make.npy(101)
    state, seen = None, []
    for i, world in enumerate(worlds):
        last = i == len(worlds) - 1
        got = read(script, made, {"shuffle": True}, [None, None] if last else [2], state, world)
        for one in got:
            seen += [x for ids, flags in one["epochs"][0] for x, flag in zip(ids, flags) if not flag & 1]
            assert one["state"] == got[0]["state"]
        state = got[0]["state"]
    assert sorted(seen) == list(range(101))
    whole = [x for one in got for ids, flags in one["epochs"][1] for x, flag in zip(ids, flags) if not flag & 1]
    assert sorted(whole) == list(range(101))
    assert state["before"] == [] and state["order"]["world_size"] == worlds[-1] and (state["epoch"], state["step"]) == (2, 0)


def test_two_machines(script, make, order):
    """Each has a loader of its own; states are equal on all, and go on in another world."""
    made = make.npy(80)
    got = read(script, made, {"shuffle": True}, [None, 2], local=2)
    for rank, one in enumerate(got):
        expected = order(made, "--batch", 4, "--world-size", 4, "--shuffle", "full", "--tail", "pad", rank=rank, epochs=2)
        assert [[ids for ids, _ in epoch] for epoch in one["epochs"]] == [expected[0], expected[1][:2]]
        assert one["state"] == got[0]["state"]
    rest = read(script, made, {"shuffle": True}, [None], got[0]["state"], world=2, local=1)
    ids = [x for one in got for ids, _ in one["epochs"][1] for x in ids]
    ids += [x for one in rest for ids, flags in one["epochs"][0] for x, flag in zip(ids, flags) if not flag & 1]
    assert sorted(ids) == list(range(80))


def test_the_others_raise_when_the_first_rank_is_gone(script, make):
    """Its loader ends with it. Nobody hangs."""
    made = make.npy(4000)
    script.ranks("""
        import os, sys, time, ringfeed as rf
        loader = rf.Loader(sys.argv[1], 4, timeout=30)
        it = iter(loader)
        next(it)
        if loader.rank == 0:
            while any(r["batch"] < 1 for r in loader.stats()["ranks"][1:]):
                time.sleep(0.01)
            os.execv("/bin/true", ["true"])  # no destructor runs
        try:
            for batch in it:
                time.sleep(0.002)
        except rf.RingfeedError as error:
            assert error.errno == 32, error
            sys.exit(0)
        sys.exit(5)
    """, made.path, world=3)


def test_another_world_at_the_end_of_an_epoch(script, make, order):
    made = make.npy(64)
    state = read(script, made, {"shuffle": True}, [None], world=4)[0]["state"]
    got = read(script, made, {"shuffle": True}, [None], state, world=2)
    for rank, one in enumerate(got):
        expected = order(made, "--batch", 4, "--world-size", 2, "--shuffle", "full", "--tail", "pad", rank=rank, epochs=2)
        assert [ids for ids, _ in one["epochs"][0]] == expected[1]


def test_one_process_for_each_rank_in_threads(make, order):
    """rank=, world_size= and name= without a launcher."""
    import threading

    made, name, got = make.npy(40), f"py-{id(make):x}", {}

    def run(rank):
        with rf.Loader(made.path, 4, rank=rank, world_size=2, name=name) as loader:
            got[rank] = [b.ids.tolist() for b in loader]

    threads = [threading.Thread(target=run, args=(r,)) for r in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for rank in range(2):
        assert got[rank] == order(made, "--batch", 4, "--world-size", 2, "--tail", "pad", rank=rank)[0]


TORCHRUN = {"WORLD_SIZE": "8", "RANK": "5", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "MASTER_PORT": "1"}
LAUNCHES = [
    (TORCHRUN, (5, 8, 4, 4)),
    ({"SLURM_NTASKS": "7", "SLURM_PROCID": "4", "SLURM_LOCALID": "0", "SLURM_NODEID": "1", "SLURM_STEP_TASKS_PER_NODE": "4,3", "SLURM_JOB_ID": "9"}, (4, 7, 4, 3)),
    ({"SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_TASKS_PER_NODE": "2(x2)", "SLURM_JOB_ID": "9"}, (3, 4, 2, 2)),
    ({"PMI_SIZE": "4", "PMI_RANK": "3", "SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_TASKS_PER_NODE": "2(x2)", "SLURM_JOB_ID": "9"}, (3, 4, 2, 2)),
    ({"WORLD_SIZE": "3", "RANK": "2", "MASTER_PORT": "7"}, (2, 3, 0, 3)),
    ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "0", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, (2, 4, 2, 2)),
    ({"PMI_SIZE": "2", "PMI_RANK": "1", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}, (1, 2, 0, 2)),
    ({}, (0, 1, 0, 1)),
]  # fmt: skip


@pytest.mark.parametrize("environment,expected", LAUNCHES)
def test_launchers(monkeypatch, environment, expected):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = _launch.find()
    assert (found.rank, found.world_size, found.first_rank, found.ranks) == expected
    assert bool(found.identity) == bool(environment)


def test_arguments_beat_the_launcher(monkeypatch):
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    found = _launch.find(rank=0, world_size=1)
    assert (found.rank, found.world_size, found.first_rank, found.ranks) == (0, 1, 0, 1)
    with pytest.raises(ValueError, match="rank=9"):
        _launch.find(rank=9)
    monkeypatch.setenv("LOCAL_RANK", "x")
    with pytest.raises(ValueError, match="LOCAL_RANK=x"):
        _launch.find()


def test_names_never_collide(monkeypatch):
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    one = _launch.name_for(_launch.find()).rsplit("-", 1)[0]
    monkeypatch.setenv("RANK", "4")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert _launch.name_for(_launch.find()).rsplit("-", 1)[0] == one
    for name in ("MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.setenv(name, "7")
        other = _launch.name_for(_launch.find()).rsplit("-", 1)[0]
        assert other != one
        one = other
    alone = _launch.Launch(0, 1, 0, 1, "")
    assert _launch.name_for(alone) != _launch.name_for(alone)
    with pytest.raises(ValueError, match="name="):
        _launch.name_for(_launch.Launch(0, 2, 0, 2, ""))


def test_two_jobs_at_once(script, make):
    made = make.npy(32)
    plan = json.dumps({"batches": [None]})
    env = {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    jobs = [script.start(READ, made.path, "{}", plan, env=env) for _ in range(3)]
    assert [job.wait() for job in jobs] == [0, 0, 0]
