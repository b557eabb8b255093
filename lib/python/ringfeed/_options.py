"""The loader's arguments: those of torch's DataLoader, and those of `ringfeed serve`."""

import warnings

# Options of `ringfeed serve` by their names, as keyword arguments.
SERVE = frozenset(
    "format record_bytes header_bytes label_field base block_samples window_blocks hash_partitions hash_seed hash_key ranges "
    "allow_gaps allow_overlap subset split use classes repeat_order start_epoch prefetch ring_bytes queue_depth engine direct "
    "pin numa heartbeat_ms max_restarts command checkpoint checkpoint_every rebalance_threshold hedge_ms on_error spares "
    "replication slow_ratio cache_bytes cpu_budget resume mirrors rebalance on_dead_rank".split()
)
_SHUFFLES = {False: "none", True: "full"}
_MEANINGLESS = {
    "worker_init_fn": "no Python runs in ringfeed's workers: decode in collate_fn",
    "multiprocessing_context": "ringfeed's workers are not Python processes",
    "persistent_workers": "ringfeed's workers always live as long as the loader",
}


def _positive(name, value):
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
        raise ValueError(f"{name}={value!r}: a whole number from 1 on is needed")
    return int(value)


def shuffle_of(shuffle):
    if isinstance(shuffle, str):
        return shuffle
    if shuffle not in (False, True, None):
        raise ValueError(f"shuffle={shuffle!r}: True, False, 'full', 'block' or 'none' is needed")
    return _SHUFFLES[bool(shuffle)]


def seed_of(seed, generator):
    if generator is None:
        return 0 if seed is None else int(seed)
    if seed is not None:
        raise ValueError("seed and generator: both say how to shuffle. Give one")
    if not hasattr(generator, "initial_seed"):
        raise TypeError(f"generator: a torch.Generator is needed, not {type(generator).__name__}")
    return generator.initial_seed() % (1 << 64)


def tail_of(drop_last, tail, ranks_in_all):
    if tail is not None:
        if drop_last and tail != "drop":
            raise ValueError(f"drop_last=True and tail={tail!r}: they contradict each other. Give one")
        return tail
    return "drop" if drop_last else "uneven" if ranks_in_all == 1 else "pad"


def warn_meaningless(given, stacklevel):
    """One warning for all arguments that a DataLoader has a use for and ringfeed has not."""
    useless = [f"{name} ({why})" for name, why in _MEANINGLESS.items() if given.get(name)]
    if useless:
        warnings.warn("ringfeed.Loader does without " + ", ".join(useless), stacklevel=stacklevel + 1)


def pin_of(pin_memory, pin_memory_device):
    """The ordinal of the GPU; -1: the one this process uses. None: nothing is to be pinned."""
    if not pin_memory:
        return None
    kind, _, ordinal = str(pin_memory_device).partition(":")
    if kind not in ("", "cuda") or (ordinal and not ordinal.isdigit()):
        raise ValueError(f"pin_memory_device={pin_memory_device!r}: '' or 'cuda:N' is needed")
    return int(ordinal) if ordinal else -1


def serve_options(given):
    """Checks names, and turns the command's two switches with words into the library's fields."""
    unknown = sorted(set(given) - SERVE)
    if unknown:
        raise TypeError(f"ringfeed.Loader has no argument {unknown[0]!r}")
    options = dict(given)
    rebalance = options.pop("rebalance", None)
    if rebalance is not None:
        options["rebalance_off"] = not rebalance or rebalance == "off"
    dead = options.pop("on_dead_rank", None)
    if dead not in (None, "wait", "redistribute"):
        raise ValueError(f"on_dead_rank={dead!r}: 'wait' or 'redistribute' is needed")
    if dead is not None:
        options["redistribute"] = dead == "redistribute"
    for name in ("resume", "mirrors"):
        if isinstance(options.get(name), (str, bytes)) or hasattr(options.get(name), "__fspath__"):
            options[name] = [options[name]]
    return {name: value for name, value in options.items() if value is not None}


def prefetch_of(prefetch_factor, num_workers, options):
    """Batches read ahead for this rank, as torch counts them: prefetch_factor a worker."""
    if prefetch_factor is None:
        return
    if "prefetch" in options:
        raise ValueError("prefetch_factor and prefetch: both say how far to read ahead. Give one")
    options["prefetch"] = max(2, _positive("prefetch_factor", prefetch_factor) * max(1, num_workers))


def batch_of(batch_size):
    if batch_size is None:
        raise ValueError("batch_size=None: ringfeed forms batches itself. Give batch_size=1 and take batch.data[0]")
    return _positive("batch_size", batch_size)


def timeout_ms_of(timeout):
    """0, as in torch, means that nothing was asked for: the run's own limit of 30 s."""
    if timeout is None or timeout == 0:
        return -1
    if not timeout > 0:
        raise ValueError(f"timeout={timeout!r}: seconds from 0 on are needed")
    return max(1, int(timeout * 1000))
