#!/usr/bin/python3
"""NumPy in the trainer itself: batches are gathered from mapped files into one reused array. No other process."""
from peer import Job, unusable

try:
    import numpy
except ImportError as why:
    unusable(f"numpy: {why}. Debian: apt install python3-numpy")


def records(job):
    """The one file as an array of records, where the samples are exactly that; else None."""
    if len(job.files) != 1 or not job.fixed:
        return None
    offsets = job.samples["offset"]
    first, n = int(offsets[0]), len(offsets)
    if (offsets != first + numpy.arange(n, dtype="u8") * numpy.uint64(job.fixed)).any():
        return None
    return numpy.memmap(job.files[0], "u1", "r", first, (n, job.fixed))


def gathered(job, array):
    out = numpy.zeros((job.batch, job.fixed), "u1")
    for at in range(0, len(job.order), job.batch):
        ids = job.order[at:at + job.batch]
        numpy.take(array, ids, axis=0, out=out[:len(ids)], mode="clip")
        yield len(ids), len(ids) * job.fixed


def copied(job):
    maps = [numpy.memmap(f, "u1", "r") for f in job.files]
    sizes = job.samples["bytes"][job.order]
    most = max((int(sizes[at:at + job.batch].sum()) for at in range(0, len(sizes), job.batch)), default=0)
    out = numpy.zeros(most, "u1")
    for at in range(0, len(job.order), job.batch):
        ids, end = job.order[at:at + job.batch], 0
        for number, _, offset, size in job.samples[ids].tolist():
            out[end:end + size] = maps[number][offset:offset + size]
            end += size
        yield len(ids), end


def main():
    job = Job()
    array = records(job)
    job.wait()
    job.run(copied(job) if array is None else gathered(job, array), 1, f"numpy {numpy.__version__}")


if __name__ == "__main__":
    main()
