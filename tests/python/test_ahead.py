"""How far a rank is read ahead, where nobody said it: further for a trainer that waits now and then, and for no other."""

import time

import ringfeed as rf

LIMIT = 60  # seconds


def rank_of(loader):
    return loader.stats()["ranks"][0]


def checked(made, loader, wanted):
    """One epoch, every byte and the order compared."""
    at = 0
    for batch in loader:
        ids = batch.ids.tolist()
        assert ids == wanted[at : at + len(ids)]
        assert all(bytes(sample) == made.samples[i].data for i, sample in zip(ids, batch.data))
        at += len(ids)
        yield batch
    assert at == len(wanted)


def order_of(ringfeed, made, epoch):
    text = ringfeed.ok("order", made.path, "--batch", 4, "--shuffle", "full", "--seed", 5, "--epoch", epoch)
    return [int(line.split()[4]) for line in text.splitlines()]


def test_bursts_are_read_ahead_for(make, ringfeed):
    """Eight at once, then nothing for a while: a ring of four runs dry each time."""
    made = make.npy(256, (700,))
    with rf.Loader(made.path, 4, shuffle=True, seed=5, num_workers=1) as loader:
        assert rank_of(loader)["depth"] == 4
        bytes_at_first = rank_of(loader)["ring_bytes"]
        depths, epoch, until = {4}, 0, time.monotonic() + LIMIT
        while max(depths) < 16 or epoch < 3:
            assert time.monotonic() < until, depths
            for n, _ in enumerate(checked(made, loader, order_of(ringfeed, made, epoch))):
                if n % 8 == 7:
                    time.sleep(0.02)  # the step
            depths.add(rank_of(loader)["depth"])
            epoch += 1
        assert depths <= {4, 8, 16, 32, 64}
        assert rank_of(loader)["ring_bytes"] >= max(depths) // 4 * bytes_at_first
        assert list(checked(made, loader, order_of(ringfeed, made, epoch)))


def test_a_steady_trainer_and_one_that_said_it_stay(make):
    made = make.npy(64)
    for options in ({}, {"prefetch": 5}, {"ring_bytes": 1 << 20}):
        with rf.Loader(made.path, 4, shuffle=True, **options) as loader:
            depth = rank_of(loader)["depth"]
            until = time.monotonic() + 1.5  # windows of 0.2 s
            while time.monotonic() < until:
                for n, _ in enumerate(loader):
                    if options and n % 8 < 7:
                        continue
                    time.sleep(0.005)  # the step
            assert rank_of(loader)["depth"] == depth == options.get("prefetch", 4)
