"""A classifier of images with labels, in MNIST's own files (IDX): mnist.py DIRECTORY

DIRECTORY holds train-images-idx3-ubyte; its label file beside it is found by name. A batch with labels unpacks as
(data, labels), and batch.torch() gives the same as tensors, of the ring's own memory."""

import sys

import ringfeed
import torch


def main(directory, epochs=3):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    with ringfeed.Loader(f"{directory}/train-images-idx3-ubyte", batch_size=128, shuffle=True) as loader:
        for epoch in range(epochs):
            right = 0
            for batch in loader:
                images, labels = batch.torch()  # uint8 [128, 28, 28], int64 [128]
                scores = model(images.float() / 255)
                loss = torch.nn.functional.cross_entropy(scores, labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                right += (scores.argmax(1) == labels).sum().item()
            print(f"epoch {epoch}: accuracy {right / loader.dataset_info['samples']:.3f}")


if __name__ == "__main__":
    main(sys.argv[1])
