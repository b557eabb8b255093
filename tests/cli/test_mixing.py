"""`plan` says how well an order mixes; numpy says the same of the lines of `order`."""

import numpy as np
import pytest

from delivery import order_lines

N, B = 3000, 32


def lines_of(ringfeed, path, *args):
    table = np.array([line.split()[:5] for line in order_lines(ringfeed, path, *args)], dtype=np.int64)
    return table[:, 1], table[:, 2], table[:, 4]  # rank, batch, index


def make_up(ranks, batches, kinds):
    """Squared deviations over the hypergeometric distribution's variances, over all batches and kinds."""
    share = np.bincount(kinds) / len(kinds)
    found = expected = 0
    for rank in np.unique(ranks):
        for batch in np.unique(batches[ranks == rank]):
            mine = kinds[(ranks == rank) & (batches == batch)]
            size = len(mine)
            found += ((np.bincount(mine, minlength=len(share)) - size * share) ** 2).sum()
            expected += (size * share * (1 - share) * (N - size) / (N - 1)).sum()
    return found / expected


@pytest.mark.parametrize("shuffle", [("none",), ("full",), ("block", "--block-samples", 50, "--window-blocks", 4)], ids=lambda s: s[0])
def test_mixing_is_what_the_order_shows(ringfeed, make, tmp_path, shuffle):
    made = make.raw(n=N, record_bytes=16)
    labels = tmp_path / "labels"
    labels.write_text("".join(f"{i // 300}\n" for i in range(N)))
    args = ("--ranks", 2, "--batch", B, "--seed", 3, "--shuffle", *shuffle, "--labels", labels, *made.args)
    mixing = ringfeed.json("plan", made.path, *args)["mixing"]
    ranks, batches, ids = lines_of(ringfeed, made.path, *args)
    assert (mixing["batches"], mixing["samples"], mixing["parts"]) == (2 * -(-N // 2 // B), N, 64)
    assert mixing["batch_make_up"] == pytest.approx(make_up(ranks, batches, ids * 64 // N), abs=0.002)
    assert mixing["class_make_up"] == pytest.approx(make_up(ranks, batches, ids // 300), abs=0.002)
    place = np.empty(N)
    for rank in (0, 1):
        place[ids[ranks == rank]] = (np.arange((ranks == rank).sum()) + 0.5) / (ranks == rank).sum()
    looked = np.arange(256) * N // 256
    assert mixing["mean_displacement"] == pytest.approx(3 * abs(place[looked] - (looked + 0.5) / N).mean(), abs=0.002)
    assert mixing["neighbour_distance"] == pytest.approx(3 * abs(place[looked + 1] - place[looked]).mean(), abs=0.002)
    if shuffle[0] == "block":
        assert (mixing["block_samples"], mixing["window_samples"]) == (50, 200)


def test_nothing_to_mix(ringfeed, make):
    made = make.raw(n=1, record_bytes=16)
    mixing = ringfeed.json("plan", made.path, "--batch", 4, *made.args)["mixing"]
    assert mixing["batches"] == 1 and mixing["batch_make_up"] is None and mixing["class_make_up"] is None
