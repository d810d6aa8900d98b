"""Layers with weights of torch beside torch itself, which runs in a process of its own.

    pip install --no-deps g2p-en silero-vad    # for the trained weights that they ship
    python benchmarks/converted.py [--python PATH]

The largest difference of the outputs, of the layer that `from_torch` makes, and of the torch.nn
layer that takes what `to_torch` makes of that.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from kerasrnn.layers import from_torch, to_torch

START, END = 2, 3


def torch_says(python, order, folder):
    script = pathlib.Path(__file__).with_name("torch_converted.py")
    done = subprocess.run(
        [python, script, order, folder], check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout.splitlines()


def phonemes(layer, case):
    """What the decoder of g2p-en makes of its words, the likeliest one after another."""
    state, now, said = case["start"], np.full(len(case["start"]), START), []
    for _ in range(case["said"].shape[1]):
        y, state = layer(case["dec_emb"][now][:, None], initial_state=state)
        now = np.argmax(y[:, 0] @ case["fc_w"].T + case["fc_b"], axis=1)
        said.append(now)
    return np.transpose(said)


def words(said):
    """The phonemes of each word, up to its end."""
    return [tuple(row[: [*row, END].index(END)]) for row in said.tolist()]


def probabilities(y, case):
    """What silero-vad makes of its LSTM's outputs."""
    logits = np.maximum(y[0], 0) @ case["weight"][0] + case["bias"]
    return 1 / (1 + np.exp(-logits))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has torch")
    python = parser.parse_args().python
    rows, notes = [], []
    with tempfile.TemporaryDirectory() as folder:
        notes += torch_says(python, "answers", folder)
        for path in sorted(pathlib.Path(folder).glob("*.npz")):
            with np.load(path) as file:
                case = dict(file)
            state = {k.removeprefix("state/"): v for k, v in case.items() if "state/" in k}
            options = json.loads(str(case["options"]))
            nonlinearity = options.get("nonlinearity")
            layer = from_torch(state, nonlinearity=nonlinearity, return_state=True)
            y, *_ = layer(case["x"], initial_state=case.get("start"))
            rows.append([path.stem, type(layer).__name__, np.abs(y - case["y"]).max()])
            with path.with_suffix(".back").open("wb") as file:
                np.savez(file, **to_torch(layer))
            if "said" in case:
                pairs = zip(words(phonemes(layer, case)), words(case["said"]), strict=True)
                same = [one == other for one, other in pairs]
                notes.append(f"g2p-en: the phonemes of {sum(same)} of {len(same)} words the same")
            if "probabilities" in case:
                given, ours = case["probabilities"], probabilities(y, case)
                notes.append(
                    f"silero-vad: P(speech) of {len(ours)} chunks, {given.min():.3f} to "
                    f"{given.max():.3f}, off by {np.abs(ours - given).max():.1e} at most"
                )
        back = dict(line.split("\t") for line in torch_says(python, "back", folder))
    print("| weights | layer | from_torch | and back by to_torch |")
    print("|---|---|---|---|")
    for name, layer, difference in rows:
        print(f"| {name} | {layer} | {difference:.0e} | {float(back[name]):.0e} |")
    print("", *notes, sep="\n")


if __name__ == "__main__":
    main()
