"""What `converted.py` runs in a process of its own: torch.nn, and the nets that packages ship.

torch_converted.py answers <folder>   writes a case per file: x, y and the state dictionary
torch_converted.py back <folder>      prints for each case how far y is from a torch.nn layer with
                                      the state dictionary that `to_torch` gave
"""

import importlib.util
import itertools
import json
import pathlib
import sys

import numpy as np
import torch

WORDS = ["gradient", "vanishing", "recurrence", "lstm", "thorough", "epoch", "keras", "xylophone"]
LETTERS = ["<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]
START = 2


def write(folder, name, options, state, **arrays):
    """A case; `options` are those of the torch.nn layer, among them its `kind`."""
    state = {f"state/{key}": np.asarray(value) for key, value in state.items()}
    arrays = {key: np.asarray(value) for key, value in arrays.items()}
    np.savez(folder / f"{name}.npz", options=json.dumps(options), **state, **arrays)


def layer_of(options):
    options = dict(options)
    return getattr(torch.nn, options.pop("kind"))(**options, batch_first=True)


def of_random_weights(folder):
    kinds = [{"kind": "RNN", "nonlinearity": name} for name in ("tanh", "relu")]
    kinds += [{"kind": "LSTM"}, {"kind": "GRU"}]
    for kind, depth, both in itertools.product(kinds, (1, 3), (False, True)):
        options = {"input_size": 24, "hidden_size": 32, "num_layers": depth, "bidirectional": both}
        options |= kind
        layer, x = layer_of(options), torch.randn(4, 50, 24)
        name = f"torch.nn.{kind['kind']}{', relu' if 'relu' in kind.values() else ''}"
        name += f", {depth} layer{'s' * (depth > 1)}{', both directions' * both}"
        write(folder, name, options, layer.state_dict(), x=x, y=layer(x)[0])


def g2p_en(folder):
    """The encoder on words as it takes them, and the phonemes that the decoder makes of them."""
    (package,) = importlib.util.find_spec("g2p_en").submodule_search_locations
    with np.load(pathlib.Path(package) / "checkpoint20.npz") as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file}
    layers, states, options = {}, {}, {}
    for part in ("enc", "dec"):
        states[part] = {
            f"{'weight' if kind == 'w' else 'bias'}_{side}_l0": arrays[f"{part}_{kind}_{side}"]
            for kind, side in itertools.product("wb", ("ih", "hh"))
        }
        units = arrays[f"{part}_w_hh"].shape[1]
        options[part] = {"kind": "GRU", "input_size": units, "hidden_size": units}
        layers[part] = layer_of(options[part])
        layers[part].load_state_dict(states[part])
    longest = max(map(len, WORDS)) + 1
    tokens = [
        [LETTERS.index(letter) for letter in word] + [LETTERS.index("</s>")] for word in WORDS
    ]
    x = arrays["enc_emb"][torch.tensor([row + [0] * (longest - len(row)) for row in tokens])]
    y, _ = layers["enc"](x)
    write(folder, "g2p-en, encoder", options["enc"], states["enc"], x=x, y=y)

    h = torch.stack([y[i, len(word)] for i, word in enumerate(WORDS)])[None]
    start, now, said, steps, outputs = h[0], [START] * len(WORDS), [], [], []
    for _ in range(20):
        x = arrays["dec_emb"][torch.tensor(now)][:, None]
        y, h = layers["dec"](x, h)
        steps.append(x)
        outputs.append(y)
        now = (y[:, 0] @ arrays["fc_w"].T + arrays["fc_b"]).argmax(axis=1).tolist()
        said.append(now)
    x, y = torch.cat(steps, axis=1), torch.cat(outputs, axis=1)
    names = {"start": start, "said": np.transpose(said)}
    names |= {name: arrays[name] for name in ("dec_emb", "fc_w", "fc_b")}
    write(folder, "g2p-en, decoder", options["dec"], states["dec"], x=x, y=y, **names)


def silero_vad(folder):
    """The LSTM on the features of a sound, and the probabilities that the net as it is shipped
    gives, for each 32 ms."""
    (package,) = importlib.util.find_spec("silero_vad").submodule_search_locations
    net = torch.jit.load(pathlib.Path(package) / "data" / "silero_vad.jit")
    time = torch.arange(512 * 60) / 16000
    # A voice of sorts, that comes and goes.
    tone = sum(
        torch.sin(2 * np.pi * 120 * k * (1 + 0.02 * torch.sin(9 * time)) * time) / k
        for k in range(1, 20)
    )
    sound = 0.1 * tone * (torch.sin(7 * time) > 0) * (0.6 + 0.4 * torch.sin(25 * time))
    sound += 0.005 * torch.randn(len(time))
    chunks = sound.reshape(-1, 512)
    probabilities = torch.cat([net(chunk[None], 16000) for chunk in chunks])

    context = torch.cat([torch.zeros(1, 64), chunks[:-1, -64:]])
    inside = net._model
    x = inside.encoder(inside.run_extractors(torch.cat([context, chunks], axis=1)))[:, :, 0][None]
    weights = inside.decoder.state_dict()
    state = {k.removeprefix("rnn."): v for k, v in weights.items() if k.startswith("rnn.")}
    options = {"kind": "LSTM", "input_size": 128, "hidden_size": 128}
    layer = layer_of(options)
    layer.load_state_dict({f"{name}_l0": value for name, value in state.items()})
    last = {name: weights[f"decoder.2.{name}"] for name in ("weight", "bias")}
    # Under the names of its LSTMCell.
    more = {"probabilities": probabilities, **last}
    write(folder, "silero-vad", options, state, x=x, y=layer(x)[0], **more)


def back(folder):
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as file:
            case = dict(file)
        layer = layer_of(json.loads(str(case["options"])))
        with np.load(path.with_suffix(".back")) as file:
            layer.load_state_dict({name: torch.from_numpy(file[name]) for name in file})
        h = torch.from_numpy(case["start"])[None] if "start" in case else None
        y, _ = layer(torch.from_numpy(case["x"]), h)
        print(path.stem, float(np.abs(y.numpy() - case["y"]).max()), sep="\t")


@torch.no_grad()
def main():
    torch.manual_seed(0)
    order, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    if order == "back":
        back(folder)
        return
    of_random_weights(folder)
    for package, cases in (("g2p_en", g2p_en), ("silero_vad", silero_vad)):
        if importlib.util.find_spec(package):
            cases(folder)
        else:
            print(f"{package} is not installed: pip install --no-deps g2p-en silero-vad")


if __name__ == "__main__":
    main()
