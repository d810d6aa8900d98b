"""An encoder and a decoder: what fits through one state, and what does not.

    python examples/encoder_decoder.py      # two minutes; writes encoder_decoder.png

One GRU, the encoder, reads a row of digits, another, the decoder, starts from the encoder's last
state and writes them again: once forwards, as they came, once backwards. In training the decoder
reads the right digits, one step late (teacher forcing, Williams & Zipser, 1989); afterwards it
reads what it wrote itself, digit by digit, with its state kept between the calls.

The table and the picture: rows written without an error, by their length; and the gradient of the
loss of the first digit written that reaches each step of the encoder. All that the decoder knows
has come through the one state, the bottleneck that attention removes: the longer the row, the less
of it arrives. With long sentences it helps to bring near what belongs together, for which
Sutskever, Vinyals & Le (2014, section 3.3) had the encoder read backwards; with rows as short as
these the gradient shows the order, and the errors hardly do.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import gallery
import keras
import numpy as np
from matplotlib.figure import Figure

from kerasrnn.diagnostics import gradient_flow
from kerasrnn.layers import GRU

ORDERS = "backwards", "forwards"
STYLES = {"backwards": ("tab:blue", "-", "o"), "forwards": ("tab:red", "--", "s")}
# Tokens: 0 for padding, 1 before the first digit that is written, 2 to 11 the digits.
PADDING, START, ZERO, TOKENS = 0, 1, 2, 12
TESTED = 200  # rows of each length


def main(argv=None):
    flags = gallery.parser(__doc__, "encoder_decoder.png")
    flags.add_argument("--longest", type=gallery.at_least(1), default=10, help="row, in digits")
    flags.add_argument("--samples", type=gallery.at_least(1), default=10000, help="of an epoch")
    flags.add_argument("--epochs", type=gallery.at_least(1), default=8)
    flags.add_argument("--units", type=gallery.at_least(1), default=96)
    arguments = flags.parse_args(argv)
    settings = {name: value for name, value in vars(arguments).items() if name != "out"}

    results = {}
    for order in ORDERS:
        results[order] = result(order, **settings)
        print(f"{order}: trained", flush=True)
    lengths = range(1, arguments.longest + 1)
    rows = [
        [order, *(f"{100 * share:.0f}" for share in one["by_length"]), f"{100 * one['right']:.1f}"]
        for order, one in results.items()
    ]
    print("\nRows without an error, % by the number of digits")
    print(gallery.table(["", *lengths, "all"], rows))
    for order, one in results.items():
        print(f"\n{order}: digits read -> written")
        for read, written in one["examples"]:
            print("  {} -> {}  {}".format(*said(order, read, written)))
    draw(results).savefig(arguments.out, dpi=90)
    print(f"\nWritten: {arguments.out}")
    print("Next: python examples/encoder_decoder.py --units 32; where is the state too small?")


def result(order="backwards", seed=0, epochs=8, samples=10000, longest=10, units=96):
    """Trains an encoder and a decoder on rows of up to `longest` digits.

    Returns:
        A dictionary: "right", the share of the test rows, as many of each length, that are written
        without an error; "by_length", the same for each length from 1 on; "digits", the share of
        right digits; "gradient", ‖∂J/∂h_t‖ at each step t of the encoder for the first digit that
        is written of the longest rows, after training; "examples", pairs of digits read and
        written, up to two right and two wrong.
    """
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    training, encoder, decoder = nets(units)
    digits = rows(rng, rng.integers(1, longest + 1, samples), longest)
    x, y = batch(digits, order)
    # Padding counts for nothing.
    weights = (y != PADDING).astype("float32")
    training.fit(x, y, sample_weight=weights, batch_size=64, epochs=epochs, verbose=0)

    lengths = np.repeat(np.arange(1, longest + 1), TESTED)
    digits = rows(rng, lengths, longest)
    _, expected = batch(digits, order)
    written = write(encoder, decoder, digits)
    there = expected != PADDING
    right = ((written == expected) | ~there).all(axis=1)
    return {
        "right": right.mean().item(),
        "by_length": right.reshape(longest, TESTED).mean(axis=1).tolist(),
        "digits": (written == expected)[there].mean().item(),
        "gradient": gradient(training, digits[-TESTED:], order),
        "examples": [
            (digits[i, : lengths[i]].tolist(), written[i, : lengths[i]].tolist())
            for of_kind in (right, ~right)
            # From the middle, where the rows are neither short nor all wrong.
            for i in np.flatnonzero(of_kind & (lengths > longest // 2))[:: TESTED // 2][:2]
        ],
    }


def rows(rng, lengths, longest):
    """Digits at random as tokens, (rows, longest), padded behind each row's length."""
    digits = rng.integers(ZERO, TOKENS, (len(lengths), longest))
    return np.where(np.arange(longest) < lengths[:, None], digits, PADDING)


def batch(digits, order):
    """What the nets read, the digits and what is written one step late, and what they write."""
    written = backwards(digits) if order == "backwards" else digits
    late = np.pad(written[:, :-1], ((0, 0), (1, 0)), constant_values=START)
    return {"digits": digits, "late": late}, written


def backwards(digits):
    """Each row from its last digit to its first, the padding still behind it."""
    flipped = digits[:, ::-1]
    # The padding is in front now; a stable order keeps the digits as they are.
    order = np.argsort(flipped == PADDING, axis=1, kind="stable")
    return np.take_along_axis(flipped, order, axis=1)


def nets(units):
    """Of the same layers: a model to train, an encoder, and a decoder that makes one step.

    Returns:
        (digits, what is written one step late) -> logits; digits -> state; (token, state) ->
        (logits, state).
    """
    embed = keras.layers.Embedding(TOKENS, units // 2, mask_zero=True, name="embed")
    read = GRU(units, return_state=True, name="encoder")
    step = GRU(units, return_sequences=True, return_state=True, name="decoder")
    logits = keras.layers.Dense(TOKENS, name="logits")

    digits = keras.Input((None,), dtype="int64", name="digits")
    _, state = read(embed(digits))
    late = keras.Input((None,), dtype="int64", name="late")
    h, _ = step(embed(late), initial_state=state)
    training = keras.Model({"digits": digits, "late": late}, logits(h))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    training.compile(keras.optimizers.Adam(3e-3, global_clipnorm=1.0), loss, weighted_metrics=[])

    token = keras.Input((1,), dtype="int64")
    before = keras.Input((units,))
    h, after = step(embed(token), initial_state=before)
    return training, keras.Model(digits, state), keras.Model([token, before], [logits(h), after])


def write(encoder, decoder, digits):
    """As many tokens as the rows of digits have, each the likeliest behind those before it."""
    state = encoder.predict(digits, batch_size=500, verbose=0)
    token, written = np.full((len(digits), 1), START), []
    for _ in range(digits.shape[1]):
        logits, state = decoder.predict([token, state], batch_size=len(digits), verbose=0)
        # Padding and the start are never written.
        token = ZERO + logits[..., ZERO:].argmax(axis=-1)
        written.append(token)
    return np.concatenate(written, axis=1)


def gradient(training, digits, order):
    """See `result`."""
    x, y = batch(digits, order)
    first = np.zeros(y.shape, "float32")
    first[:, 0] = 1
    return gradient_flow(training, x, y, first).norms["encoder"].tolist()


def said(order, read, written):
    """Both as text, and whether it is right."""
    right = written == (read[::-1] if order == "backwards" else read)
    texts = ("".join(str(token - ZERO) for token in row) for row in (read, written))
    return *texts, "right" if right else "wrong"


def draw(results):
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    shares, flow = figure.subplots(1, 2)
    for order, one in results.items():
        color, line, marker = STYLES[order]
        style = {"color": color, "linestyle": line, "marker": marker}
        steps = np.arange(len(one["by_length"])) + 1
        shares.plot(steps, 100 * np.array(one["by_length"]), label=order, **style)
        flow.plot(steps, np.array(one["gradient"]) / one["gradient"][-1], label=order, **style)
    shares.set(xlabel="digits of a row", ylabel="rows without an error, %", ylim=(-3, 103))
    shares.set_title("What fits through one state")
    flow.set(xlabel="step t of the encoder, T the last", ylabel="‖∂J/∂h(t)‖ / ‖∂J/∂h(T)‖")
    flow.set_ylim(0, None)
    flow.set_title("Gradient of the first digit written")
    for axis in (shares, flow):
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(title="The digits are written", handlelength=4)
    return figure


if __name__ == "__main__":
    main()
