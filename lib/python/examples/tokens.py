"""A language model on tokens that lie one after the other in a file of uint16: tokens.py FILE VOCABULARY

A sample is a raw record of CONTEXT + 1 tokens, so the batch is bytes: NumPy sees uint16 in them, torch 1.13 has no such type."""

import sys

import ringfeed
import torch

CONTEXT = 32


class Model(torch.nn.Module):
    def __init__(self, vocabulary, width=32):
        super().__init__()
        self.embedding = torch.nn.Embedding(vocabulary, width)
        self.recurrent = torch.nn.GRU(width, width, batch_first=True)
        self.out = torch.nn.Linear(width, vocabulary)

    def forward(self, tokens):
        return self.out(self.recurrent(self.embedding(tokens))[0])


def main(path, vocabulary, epochs=2):
    torch.manual_seed(0)
    model = Model(vocabulary)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    record = 2 * (CONTEXT + 1)
    with ringfeed.Loader(path, batch_size=16, shuffle=True, drop_last=True, format="raw", record_bytes=record) as loader:
        for epoch in range(epochs):
            total = 0.0
            for batch in loader:
                tokens = torch.from_numpy(batch.data.view("<u2").astype("i8"))  # [16, 33]
                scores = model(tokens[:, :-1])
                loss = torch.nn.functional.cross_entropy(scores.flatten(0, 1), tokens[:, 1:].flatten())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.item()
            print(f"epoch {epoch}: loss {total / len(loader):.3f}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
