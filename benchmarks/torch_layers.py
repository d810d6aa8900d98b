"""What `recurrent_layers.py` runs in a process of its own: torch.nn, one order per line.

set_up <kind> <batch> <time> <features> <units> <bidirectional>
fit <steps>        one training step's median seconds
predict <steps>    one forward pass's
"""

import statistics
import sys
import time

import torch


class Net:
    def __init__(self, kind, batch, time_steps, features, units, bidirectional):
        torch.manual_seed(0)
        self.layer = getattr(torch.nn, kind)(
            features, units, batch_first=True, bidirectional=bool(bidirectional)
        )
        self.x = torch.randn(batch, time_steps, features)
        self.y = torch.randn(batch, time_steps, units * (1 + bidirectional))
        self.optimizer = torch.optim.SGD(self.layer.parameters(), 1e-3)

    def fit(self):
        self.optimizer.zero_grad()
        torch.nn.functional.mse_loss(self.layer(self.x)[0], self.y).backward()
        self.optimizer.step()

    @torch.no_grad()
    def predict(self):
        self.layer(self.x)


def seconds(step):
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def main():
    print("ready", flush=True)
    for line in sys.stdin:
        order, *words = line.split()
        if order == "set_up":
            kind, *numbers = words
            net = Net(kind, *map(int, numbers))
            print("done", flush=True)
        else:
            times = [seconds(getattr(net, order)) for _ in range(int(words[0]))]
            print(statistics.median(times[1:]), flush=True)


if __name__ == "__main__":
    main()
