"""Which rank this process is, as the launcher's environment or the caller says it."""

import hashlib
import itertools
import os
import secrets
import sys
from dataclasses import dataclass

# As the command reads them (ringfeed serve). An inner launcher comes before one it may run under. The last column makes
# a name that two jobs on one machine cannot share.
_LAUNCHERS = (
    ("torchrun", "WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE",
     ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT")),
    ("Open MPI", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE", ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid")),
    ("MPICH", "PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", ("PMI_JOBID",)),
    ("Slurm", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE",
     ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")),
)  # fmt: skip

_numbers = itertools.count()


@dataclass(frozen=True)
class Launch:
    rank: int
    world_size: int
    first_rank: int  # of this machine
    ranks: int  # on this machine
    identity: str  # of the job, the same on all its ranks here; "": unknown

    @property
    def owns(self):
        """Whether this is the rank that starts the loader."""
        return self.rank == self.first_rank


def _number(launcher, name):
    text = os.environ.get(name, "")
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"{name}={text}: not a number (set by {launcher}?). Correct or unset it, or give rank= and world_size=")
    return int(text)


def _parent():
    """The launcher's process, which all ranks of one machine have in common, with its start time."""
    with open(f"/proc/{os.getppid()}/stat", "rb") as stat:
        return f"{os.getppid()}.{stat.read().rpartition(b')')[2].split()[19].decode()}"


def _slurm_ranks():
    """Tasks on this node, from a list like 4(x2),3."""
    node = _number("Slurm", "SLURM_NODEID") or 0
    for name in ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"):
        sizes = []
        for part in filter(None, os.environ.get(name, "").split(",")):
            count, _, repeat = part.rstrip(")").partition("(x")
            if not count.isdigit() or (repeat and not repeat.isdigit()):
                raise ValueError(f"{name}={os.environ[name]}: not a list like 4(x2),3. Give ranks= and first_rank=")
            sizes += [int(count)] * int(repeat or 1)
        if node < len(sizes):
            return sizes[node]
    return None


def _row():
    """The launcher that says most: srun sets PMI_SIZE as MPICH does, but not the rank on its machine."""
    set_here = [row for row in _LAUNCHERS if os.environ.get(row[1])]
    return next((row for row in set_here if os.environ.get(row[2]) and os.environ.get(row[3])), (set_here or [None])[0])


def _of_launcher():
    row = _row()
    if row is None:
        return {}
    launcher, world, rank, local_rank, local_size, identity = row
    ids = [os.environ.get(name, "") for name in identity]
    ranks = (_slurm_ranks() if launcher == "Slurm" else None) or _number(launcher, local_size)
    return {
        "world_size": _number(launcher, world),
        "rank": _number(launcher, rank),
        "local_rank": _number(launcher, local_rank),
        "ranks": ranks,
        "identity": "/".join([launcher, *ids]) if any(ids) else f"{launcher}/{_parent()}",
    }


def _of_torch():
    """The default group of torch.distributed, where there is one already."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return None, None


def find(rank=None, world_size=None, first_rank=None, ranks=None):
    """What the arguments leave open comes from the launcher, then from torch.distributed; nothing at all: one rank of one."""
    found = _of_launcher()
    group_rank, group_size = _of_torch() if not found else (None, None)
    world = next((w for w in (world_size, found.get("world_size"), group_size) if w is not None), None)
    if world is None:
        world = max(rank or 0, (first_rank or 0) + (ranks or 1) - 1) + 1
    mine = next((r for r in (rank, found.get("rank"), group_rank) if r is not None), None)
    if mine is None:
        if world > 1:
            raise ValueError(f"world_size={world}, but which rank this process is stands nowhere. Give rank=, or use torchrun")
        mine = 0
    if not 0 <= mine < world:
        raise ValueError(f"rank={mine}: ranks of a world of {world} are 0 to {world - 1}")
    local = found.get("local_rank")
    if first_rank is None:
        first_rank = mine - local if local is not None and rank is None and local <= mine else 0
    if ranks is None:
        ranks = found.get("ranks") if world_size is None else None
        ranks = min(ranks, world - first_rank) if ranks else world - first_rank
    if not first_rank <= mine < first_rank + ranks <= world:
        raise ValueError(
            f"rank {mine} is not one of this machine's ranks {first_rank} to {first_rank + ranks - 1} of {world}. Correct "
            "rank=, first_rank=, ranks= and world_size=, or place ranks machine by machine"
        )
    return Launch(mine, world, first_rank, ranks, found.get("identity", ""))


def name_for(launch):
    """The run's name: this process's alone, or one that every rank of the job here comes to by itself."""
    number = next(_numbers)
    if launch.ranks == 1:
        return f"py-{os.getpid()}-{number}-{secrets.token_hex(6)}"
    if not launch.identity:
        raise ValueError(
            f"{launch.ranks} ranks share a loader here, and no launcher says what job they are of. Give all of them the same "
            "name=, or use torchrun, srun or mpirun"
        )
    digest = hashlib.sha256(f"{os.getuid()}/{launch.identity}/{launch.first_rank}".encode()).hexdigest()
    return f"py-{digest[:24]}-{number}"
