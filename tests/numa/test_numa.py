"""ringfeed on an emulated machine of five NUMA nodes (machine.py), one of them without memory. guest.sh ran it in several
situations; here is compared what the kernel in there wrote down (numa_maps, the CPUs that are allowed), what ringfeed says
of itself, and what it should be.

    tools/test numa
"""

import collections
import json
import os
import pathlib
import random
import re
import subprocess

import pytest

import machine

SAMPLES, RECORD = 2048, 4096
COMMAND = pathlib.Path(os.environ["RINGFEED"]).resolve()
KERNEL = pathlib.Path(os.environ["RINGFEED_NUMA_KERNEL"])


class Scene:
    def __init__(self, path, files):
        self.path = path
        self.samples = files / "samples.bin"
        self.stat = json.loads((path / "stat.json").read_text())
        self.said = (path / "serve.err").read_text()
        self.ranks = self.stat["ranks"]

    def plan(self):
        return json.loads((self.path / "plan.json").read_text())

    def warnings(self):
        return [line for line in self.said.splitlines() if "NUMA" in line]

    def pages(self, process="server"):
        """Per rank, how many pages of its ring the kernel counts on which node. Rings lie one after the other behind
        the first page, in whole pages of the size that they may have."""
        addresses = {}
        for line in (self.path / process / "maps").read_text().splitlines():
            if line.endswith("/dev/shm/ringfeed.s.data"):
                addresses[line.split("-")[0]] = int(line.split()[2], 16)
        sizes = self.size()
        grain = 2 << 20 if sizes >= 2 << 20 else 4096
        counts = [collections.Counter() for _ in self.ranks]
        for line in (self.path / process / "numa_maps").read_text().splitlines():
            if line.split()[0] not in addresses:
                continue
            rank, rest = divmod(addresses[line.split()[0]] - grain, sizes)
            if 0 <= rank < len(counts):
                assert rest == 0
                for node, pages in re.findall(r" N(\d+)=(\d+)", line):
                    counts[rank][int(node)] += int(pages)
        return counts

    def size(self):
        return {r["ring_bytes"] for r in self.ranks}.pop()

    def workers(self):
        """pid: CPUs that the kernel lets it run on."""
        found = {}
        for path in self.path.glob("worker.*"):
            listed = re.search(r"Cpus_allowed_list:\s*(\S+)", (path / "status").read_text())[1]
            cpus = set()
            for part in listed.split(","):
                first, _, last = part.partition("-")
                cpus |= set(range(int(first), int(last or first) + 1))
            found[int(path.name.split(".")[1])] = cpus
        return found


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("files")
    (directory / "samples.bin").write_bytes(random.Random(4).randbytes(SAMPLES * RECORD))
    with open(directory / "hole", "wb") as hole:  # costs nothing on the disk, and a lot of page cache
        hole.truncate(600 << 20)
    return directory


@pytest.fixture(scope="module")
def scene(tmp_path_factory, files):
    facts = machine.run(tmp_path_factory.mktemp("machine"), KERNEL, COMMAND, files)
    return lambda name: Scene(facts / name, files)


SCENES = ["gpus", "small", "one-worker", "crowded", "off", "no-memory", "cpuset", "cached", "full"]


def nearest(node, allowed):
    return min(allowed, key=lambda n: machine.DISTANCES[node][n])


@pytest.mark.parametrize("name", SCENES)
def test_every_rank_gets_what_order_prints_wherever_things_are(scene, name):
    s = scene(name)
    ranks = len(s.ranks)
    assert (s.path / "attach.status").read_text().split() == ["0"] * ranks, s.said
    assert (s.path / "serve.status").read_text().split() == ["0"], s.said
    printed = subprocess.run(
        [COMMAND, "order", s.samples, "--format", "raw", "--record-bytes", str(RECORD), "--world-size", str(ranks),
         "--batch", "16", "--shuffle", "full", "--seed", "7"], capture_output=True, text=True, check=True).stdout
    for rank in range(ranks):
        expected = [line for line in printed.splitlines() if line.split()[1] == str(rank)]
        got = (s.path / f"ids.{rank}").read_text().splitlines()
        assert got == expected[:len(got)] and len(got) >= len(expected) - 15 > 0
        assert json.loads((s.path / f"attach.{rank}").read_text().splitlines()[-1])["check_errors"] == 0


@pytest.mark.parametrize("name", SCENES)
def test_stat_says_where_the_kernel_says_that_pages_are(scene, name):
    s = scene(name)
    for stat, pages in zip(s.ranks, s.pages() if name != "off" else [None] * 4):
        assert stat["pages_checked"] == 64
        if pages is None:
            continue
        assert sum(pages.values()) * 4096 == stat["ring_bytes"]
        share = pages[stat["node"]] / sum(pages.values())
        assert stat["pages_on_node"] / 64 == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize("name,ranks", [("gpus", 4), ("small", 4), ("one-worker", 4), ("crowded", 4), ("no-memory", 5)])
def test_rings_are_on_the_nodes_of_their_gpus(scene, name, ranks):
    s = scene(name)
    expected = [nearest(node, machine.MEMORY_NODES) for node in machine.GPU_NODES[:ranks]]
    assert [r["node"] for r in s.ranks] == expected
    assert [dict(pages) for pages in s.pages()] == [{node: s.size() // 4096} for node in expected]
    assert [r["pages_on_node"] for r in s.ranks] == [64] * ranks
    plan = s.plan()
    assert [r["node"] for r in plan["ranks"]] == expected
    assert [r["gpu_node"] for r in plan["ranks"]] == machine.GPU_NODES[:ranks]
    assert [r["cpus"] for r in plan["ranks"]] == [f"{2 * node}-{2 * node + 1}" for node in expected]
    disk = (s.path.parent / "disk").read_text().strip()
    assert plan["dataset_disk"] == disk
    assert [r["disk_distance"] for r in plan["ranks"]] == [machine.DISTANCES[n][machine.DATA_NODE] for n in expected]
    assert {d["disk"]: d["node"] for d in plan["disks"]}[disk] == machine.DATA_NODE


def test_large_rings_are_huge_pages_and_small_ones_are_not_joined(scene):
    large, small = scene("gpus"), scene("small")
    assert [r["huge_bytes"] for r in large.ranks] == [r["ring_bytes"] for r in large.ranks] == [4 << 20] * 4
    assert [r["huge_bytes"] for r in small.ranks] == [0] * 4 and small.size() < 2 << 20
    smaps = (large.path / "server" / "smaps").read_text()
    huge = sum(int(n) for n in re.findall(r"ringfeed\.s\.data(?:\n\S*:? .*?)*?\nShmemPmdMapped:\s+(\d+)", smaps))
    assert huge >= 4 * 4096


@pytest.mark.parametrize("name", ["gpus", "no-memory", "cpuset", "full"])
def test_each_worker_is_held_on_one_cpu_of_a_node_with_a_ring(scene, name):
    s = scene(name)
    allowed = s.workers()
    nodes = {r["node"] for r in s.ranks}
    assert len(allowed) == len(s.stat["workers"]) == len(s.ranks)
    for worker in s.stat["workers"]:
        assert allowed[worker["pid"]] == {worker["cpu"]}
        assert worker["cpu"] in machine.CPUS[worker["node"]] and worker["node"] in nodes
    assert len(set.union(*allowed.values())) == len(allowed)


def test_more_workers_than_cpus_are_held_on_their_nodes(scene):
    s = scene("crowded")
    allowed = s.workers()
    assert len(allowed) == 12
    for worker in s.stat["workers"]:
        assert worker["cpu"] == -1 and allowed[worker["pid"]] == machine.CPUS[worker["node"]]
    assert collections.Counter(w["node"] for w in s.stat["workers"]) == {node: 3 for node in machine.MEMORY_NODES}


@pytest.mark.parametrize("name", SCENES)
def test_local_and_remote_samples_add_up(scene, name):
    s = scene(name)
    filled = sum(r["local_samples"] + r["remote_samples"] for r in s.ranks)
    assert filled == sum(w["samples"] for w in s.stat["workers"]) > 0
    if name in ("gpus", "small", "crowded"):  # each ring's node has its workers
        assert all(r["local_samples"] > 0 for r in s.ranks)


def test_with_one_worker_its_ring_is_local_and_the_others_are_remote(scene):
    s = scene("one-worker")
    worker = s.stat["workers"][0]
    for rank in s.ranks:
        here = rank["node"] == worker["node"]
        assert (rank["local_samples"] > 0, rank["remote_samples"] > 0) == (here, not here)
    assert [r["node"] for r in s.ranks].count(worker["node"]) == 1


def test_without_numa_the_node_is_the_one_that_pages_came_to_be_on(scene):
    s = scene("off")
    assert s.warnings() == [] and all(w["cpu"] == -1 for w in s.stat["workers"])
    whole = collections.Counter()
    for line in (s.path / "server" / "numa_maps").read_text().splitlines():
        if "ringfeed.s.data" in line:
            assert line.split()[1] == "default"
            whole.update({int(node): int(pages) for node, pages in re.findall(r" N(\d+)=(\d+)", line)})
    assert {r["node"] for r in s.ranks} <= set(whole)


def test_a_node_without_memory_is_said_once_and_the_nearest_one_serves(scene):
    s = scene("no-memory")
    said = s.warnings()
    assert len(said) == 1 and "rank 4 is on node 4" in said[0] and "its ring is on node 3" in said[0]


def test_a_node_outside_the_cpuset_is_said_once_and_the_nearest_one_serves(scene):
    s = scene("cpuset")
    expected = [nearest(node, [0, 1, 3]) for node in machine.GPU_NODES[:4]]
    assert [r["node"] for r in s.ranks] == expected == [3, 0, 3, 1]
    assert [set(pages) for pages in s.pages()] == [{node} for node in expected]
    said = s.warnings()
    assert len(said) == 1 and "rank 0 is on node 2" in said[0] and "its ring is on node 3" in said[0]
    assert all(cpus <= {0, 1, 2, 3, 6, 7} for cpus in s.workers().values())


def free_on_2(s):
    return int(re.search(r"MemFree:\s+(\d+) kB", (s.path / "node2.meminfo").read_text())[1]) << 10


def test_a_node_full_of_page_cache_makes_room(scene):
    s = scene("cached")
    assert free_on_2(s) < s.size(), "the node was not full"
    assert [set(pages) for pages in s.pages()] == [{node} for node in machine.GPU_NODES[:4]]
    assert s.warnings() == []


def test_a_node_that_is_full_for_good_is_said_once_and_other_nodes_help(scene):
    s = scene("full")
    assert free_on_2(s) < s.size(), "the node was not full"
    rank, *others = s.ranks
    assert rank["node"] == 2 and rank["pages_on_node"] < rank["pages_checked"]
    assert s.pages()[0][2] * 4096 < s.size() == sum(s.pages()[0].values()) * 4096
    assert all(r["pages_on_node"] == 64 for r in others)
    said = s.warnings()
    assert len(said) == 1 and "rank 0's ring" in said[0] and "not on node 2" in said[0]
