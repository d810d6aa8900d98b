"""What `onnx_speed.py` runs in a process of its own: torch.nn writes ONNX files, and its weights.

torch_onnx.py <folder> <batch> <time> <features> <units>
"""

import pathlib
import sys

import numpy as np
import torch


def main():
    torch.manual_seed(0)
    folder, (batch, time, features, units) = pathlib.Path(sys.argv[1]), map(int, sys.argv[2:])
    for kind in ("LSTM", "GRU"):
        layer = getattr(torch.nn, kind)(features, units, batch_first=True).eval()
        arrays = {name: value.numpy() for name, value in layer.state_dict().items()}
        np.savez(folder / f"{kind}.npz", **arrays)
        x = torch.zeros(batch, time, features)
        names = {"input_names": ["x"], "output_names": ["y"]}
        torch.onnx.export(layer, (x,), folder / f"{kind}.torch.onnx", **names, external_data=False)


if __name__ == "__main__":
    main()
