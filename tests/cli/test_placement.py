"""Where ranks, workers and memory go: `plan` on pictures of machines that are read here by other code (machines.py), and
`serve` on a machine that believes to have two nodes. On real (emulated) nodes: tests/numa."""

import pathlib

import pytest

import machines
from conftest import REPO
from delivery import Trainer
from machines import Node

RECORDED = sorted((REPO.parent / "shared" / "topologies").glob("*.xml"))
OURS = REPO / "tests" / "unit" / "topology" / "two-sockets.xml"
NVIDIA, AMD = 0x10DE, 0x1002


def cpus_of(text):
    found = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


@pytest.fixture
def plan(ringfeed, make):
    made = make.raw(n=400)

    def run(topology, ranks, *args, env=None):
        args = [*args, *(["--topology", topology] if topology else [])]
        return ringfeed.json("plan", made.path, *made.args, "--world-size", ranks, *args, env=env)

    return run


@pytest.mark.parametrize("path", [OURS, *RECORDED], ids=lambda p: p.stem)
def test_ranks_go_to_the_nodes_of_their_gpus_as_the_picture_has_them(plan, path):
    m = machines.Machine(path)
    nodes = sorted(m.nodes)
    for ranks in sorted({1, len(m.gpus), len(m.gpus) + 1, 2 * len(m.gpus)}):
        p = plan(path, ranks)
        assert {n["node"]: n["cpus"] for n in p["nodes"]} == {n: len(cpus) for n, cpus in m.nodes.items()}
        assert {d["disk"]: d["node"] for d in p.get("disks", [])} == m.disks
        for i, rank in enumerate(p["ranks"]):
            gpu, node = m.gpus[i] if ranks <= len(m.gpus) else (None, None)
            dealt = nodes[i * len(nodes) // ranks]
            assert (rank["gpu"], rank["gpu_node"]) == (gpu, node)
            assert rank["node"] == (dealt if node is None else node)
            assert cpus_of(rank["cpus"]) == m.nodes[rank["node"]]
            assert rank["disk_distance"] is None
        for worker in p["workers"]:
            assert worker["cpu"] in m.nodes[worker["node"]]
            assert len(p["workers"]) > 2 or worker["node"] in {r["node"] for r in p["ranks"]}


@pytest.mark.parametrize("path", [OURS, *RECORDED], ids=lambda p: p.stem)
def test_the_way_to_the_disk_is_the_one_in_the_picture(plan, path):
    m = machines.Machine(path)
    for disk, node in m.disks.items():
        p = plan(path, len(m.gpus), "--disk", disk)
        assert p["dataset_disk"] == disk
        for rank in p["ranks"]:
            known = m.distances.get((rank["node"], node), 10 if node == rank["node"] else None)
            assert rank["disk_distance"] == (None if node is None else known)


DISTANCES = [[10, 16, 32, 32], [16, 10, 32, 32], [32, 32, 10, 16], [32, 32, 16, 10]]


def four(tmp_path, forbidden=(), **more):
    """Four nodes of four CPUs, a disk at node 2; `more` changes nodes: n1=dict(...)."""
    nodes = [Node([4 * n + i for i in range(4)], disks=["nvme0n1"] if n == 2 else []) for n in range(4)]
    for name, changes in more.items():
        for key, value in changes.items():
            setattr(nodes[int(name[1:])], key, value)
    return machines.write(tmp_path / "machine.xml", nodes, DISTANCES, forbidden)


def nodes_of(p):
    return [r["node"] for r in p["ranks"]]


def test_without_gpus_few_ranks_are_near_the_disk(plan, tmp_path):
    machine = four(tmp_path)
    assert nodes_of(plan(machine, 1)) == [0]
    assert nodes_of(plan(machine, 1, "--disk", "nvme0n1")) == [2]
    p = plan(machine, 2, "--disk", "nvme0n1")
    assert nodes_of(p) == [2, 3] and [r["disk_distance"] for r in p["ranks"]] == [10, 16]
    assert {w["node"] for w in p["workers"]} == {2, 3}
    assert nodes_of(plan(machine, 4, "--disk", "nvme0n1")) == [0, 1, 2, 3]


def test_a_gpu_decides_and_the_disk_only_where_its_node_is_full(plan, tmp_path):
    machine = four(tmp_path, n0={"gpus": [(1, NVIDIA)]})
    p = plan(machine, 1, "--disk", "nvme0n1", "--workers", 7)
    assert nodes_of(p) == [0]
    assert [w["node"] for w in p["workers"]] == [0, 0, 0, 0, 2, 2, 2]


def test_what_belongs_to_a_node_without_memory_goes_to_the_nearest(plan, tmp_path):
    gpus = {f"n{n}": {"gpus": [(0x10 * (n + 1), AMD)]} for n in range(4)}
    gpus["n1"]["memory"] = 0
    p = plan(four(tmp_path, **gpus), 4)
    assert nodes_of(p) == [0, 0, 2, 3] and [r["gpu_node"] for r in p["ranks"]] == [0, 1, 2, 3]
    assert nodes_of(plan(four(tmp_path, n1={"memory": 0}), 3)) == [0, 2, 3]
    assert nodes_of(plan(four(tmp_path, **{f"n{n}": {"memory": 0} for n in range(4)}), 4)) == [0, 1, 2, 3]


def test_a_node_outside_the_cpuset_gets_no_ring_and_no_worker(plan, tmp_path):
    gpus = {f"n{n}": {"gpus": [(0x10 * (4 - n), NVIDIA)]} for n in range(4)}
    p = plan(four(tmp_path, forbidden=[3], **gpus), 4, "--workers", 12)
    assert [r["gpu_node"] for r in p["ranks"]] == [3, 2, 1, 0] and nodes_of(p) == [2, 2, 1, 0]
    assert {w["cpu"] for w in p["workers"]} == set(range(12))


def pretend(path):
    """hwloc takes the picture for this machine."""
    return {"HWLOC_XMLFILE": str(path), "HWLOC_THISSYSTEM": "1"}


UUIDS = ("GPU-1c9f57be-0000-4000-8000-000000000010", "GPU-89000000-0000-4000-8000-000000000050",
         "GPU-8932f937-0000-4000-8000-000000000020")


@pytest.mark.parametrize("visible,ranks,expected", [
    ({}, 2, [0x10, 0x20]),
    ({"CUDA_VISIBLE_DEVICES": "3,0"}, 2, [0x50, 0x10]),
    ({"CUDA_VISIBLE_DEVICES": "2,3,1"}, 2, [0x40, 0x50]),
    ({"CUDA_VISIBLE_DEVICES": "3"}, 2, [0x10, 0x20]),  # one process's: not the server's
    ({"CUDA_VISIBLE_DEVICES": "3,GPU-8932f937"}, 2, [0x50, 0x20]),  # a part of a UUID
    ({"CUDA_VISIBLE_DEVICES": f"{UUIDS[1]},{UUIDS[0]}"}, 2, [0x50, 0x10]),
    ({"CUDA_VISIBLE_DEVICES": f"MIG-{UUIDS[2]}/1/0,MIG-{UUIDS[2]}/2/0"}, 2, [0x20, 0x20]),
    ({"CUDA_VISIBLE_DEVICES": "3,GPU-0000"}, 2, [0x10, 0x20]),  # there is none
    ({"CUDA_VISIBLE_DEVICES": "3,GPU-89"}, 2, [0x10, 0x20]),  # there are two
    ({"CUDA_VISIBLE_DEVICES": "3,MIG-8932f937-1111-4222-8333-123456789abc"}, 2, [0x10, 0x20]),  # cannot be looked up
    ({"CUDA_VISIBLE_DEVICES": "-1,0"}, 2, [0x10, 0x20]),
    ({"CUDA_VISIBLE_DEVICES": "1,4"}, 2, [0x10, 0x20]),  # there are four
    ({"ROCR_VISIBLE_DEVICES": "1,0"}, 2, [0x60, 0x30]),
])
def test_visible_devices_are_the_ranks_gpus(plan, tmp_path, visible, ranks, expected):
    nodes = [Node([0], gpus=[(0x10, NVIDIA, UUIDS[0]), (0x30, AMD), (0x50, NVIDIA, UUIDS[1])]),
             Node([1], gpus=[(0x20, NVIDIA, UUIDS[2]), (0x40, NVIDIA), (0x60, AMD)])]
    machine = machines.write(tmp_path / "machine.xml", nodes)
    unset = {name: "" for name in ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")}
    p = plan(None, ranks, env={**pretend(machine), **unset, **visible})
    assert [r["gpu"] for r in p["ranks"]] == [f"0000:{bus:02x}:00.0" for bus in expected]
    assert [r["gpu_node"] for r in p["ranks"]] == [0 if bus % 0x20 else 1 for bus in expected]
    assert [r["gpu"] for r in plan(machine, ranks, env=visible)["ranks"]] == ["0000:10:00.0", "0000:20:00.0"]


def test_a_disk_that_is_not_there_is_wrong_usage(ringfeed, make):
    made = make.raw(n=4)
    ringfeed.fails("plan", made.path, *made.args, "--topology", OURS, "--disk", "sdz", status=2, says="--disk sdz")


def test_what_is_counted_is_where_things_are_and_not_where_they_were_wished(ringfeed, run_name, make, tmp_path):
    """A machine of one node that believes to have two: nothing can be bound to the second, and no worker runs there."""
    if pathlib.Path("/sys/devices/system/node/node1").exists():
        pytest.skip("this machine has a second node")
    machine = machines.write(tmp_path / "machine.xml", [Node([0]), Node([1])])
    made = make.raw(n=400)
    serve = ringfeed.serve(made.path, run_name, *made.args, "--world-size", 2, "--batch", 10, "--epochs", 0,
                           "--workers", 2, "--pin", "off", env=pretend(machine))
    for rank in range(2):
        Trainer(ringfeed, run_name, rank, "--limit", 20).ok()
    here, away = ringfeed.json("stat", run_name)["ranks"]
    serve.end()
    assert (here["node"], away["node"]) == (0, 1)
    assert here["local_samples"] >= 200 and here["remote_samples"] == 0
    assert away["remote_samples"] >= 200 and away["local_samples"] == 0
    told = here["pages_checked"] > 0  # a container may forbid the question
    assert here["pages_on_node"] == here["pages_checked"] == away["pages_checked"]
    assert away["pages_on_node"] == 0 and (not told or here["pages_on_node"] > 0)
    said = [line for line in serve.stderr.splitlines() if "NUMA" in line]
    assert len(said) == (1 if told else 2) and "not bound" in said[0] and "--numa off" in said[0]


def test_without_numa_the_node_is_where_the_pages_are(ringfeed, run_name, make, tmp_path):
    if pathlib.Path("/sys/devices/system/node/node1").exists():
        pytest.skip("this machine has a second node")
    machine = machines.write(tmp_path / "machine.xml", [Node([0]), Node([1])])
    made = make.raw(n=40)
    serve = ringfeed.serve(made.path, run_name, *made.args, "--world-size", 2, "--epochs", 0, "--numa", "off",
                           env=pretend(machine))
    ranks = ringfeed.json("stat", run_name)["ranks"]
    serve.end()
    if ranks[0]["pages_checked"]:
        assert [r["node"] for r in ranks] == [0, 0]
    assert serve.stderr == ""
