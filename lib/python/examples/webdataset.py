"""Images in tar files, decoded in the trainer: webdataset.py TAR…

ringfeed moves bytes; what a JPEG is, your program knows. Decoding goes into collate_fn, which gets a list of samples:
({"jpg": bytes, …}, label) each. For more than one core's worth of it, give the batches to threads: Pillow (like most
decoders, and NumPy) works without the GIL, and the batches still come in order."""

import collections
import concurrent.futures
import io
import sys

import numpy
import PIL.Image
import ringfeed

SIZE = 64


def decode(sample):
    fields, label = sample
    image = PIL.Image.open(io.BytesIO(fields["jpg"])).convert("RGB").resize((SIZE, SIZE))
    return numpy.asarray(image), label


def collate(samples):
    images, labels = zip(*map(decode, samples))
    return numpy.stack(images), numpy.array(labels)


def in_one_thread(paths):
    with ringfeed.Loader(paths, batch_size=32, shuffle=True, collate_fn=collate) as loader:
        yield from loader


def in_a_pool(paths, threads=4, ahead=8):
    """The same batches, `ahead` of them in work at a time. Each leaves the ring before it is decoded: copy=True."""
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        with ringfeed.Loader(paths, batch_size=32, shuffle=True, copy=True) as loader:
            work = collections.deque()
            for batch in loader:
                work.append(pool.submit(lambda b: collate(b.samples()), batch))
                if len(work) >= ahead:
                    yield work.popleft().result()
            while work:
                yield work.popleft().result()


if __name__ == "__main__":
    for read in (in_one_thread, in_a_pool):
        n, total = 0, 0
        for images, labels in read(sys.argv[1:]):
            n, total = n + len(labels), total + int(images.sum()) + int(labels.sum())
        print(f"{read.__name__}: {n} images, sum {total}")
