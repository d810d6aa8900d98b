"""Whether what lies further back than the gradient reaches matters to a model: its loss where that
is another sample's."""

import math
from typing import NamedTuple

import numpy as np
from keras import tree

from kerasrnn.backends import tf
from kerasrnn.diagnostics.looking import left_as_it_was, shadowed, weights_of_mask
from kerasrnn.inside import attached_mask

# A loss stays as it was if it moves by no more than that share of itself, or of the trivial
# predictor's, whichever is more,
_OF_LOSS, _OF_TRIVIAL = 0.1, 1e-3
# with so many standard errors, over the batch, on top of it.
_ERRORS = 2
# Fewer samples whose inputs the exchange changes show nothing.
_FEWEST = 8
# From so many resamplings of the batch the standard error comes.
_RESAMPLED = 16
_SEED = 0


class Exchange(NamedTuple):
    """The loss of a model where a recurrent layer's inputs further back are another sample's.

    Attributes:
        back: N, how many steps before its last one each sample has kept.
        loss, exchanged: J as it is and with the exchange, regularizers left out.
        error: The standard error of their difference over the batch.
        stays: Whether the loss stays as it was, and the batch is large enough to tell.
        at_last: Whether it is that of each sample's last step alone.
    """

    back: int
    loss: float
    exchanged: float
    error: float
    stays: bool
    at_last: bool = False

    @property
    def what(self):
        """Which loss it is, in words."""
        return "the loss of the samples' last steps" if self.at_last else "the loss"

    @property
    def rise(self):
        return self.exchanged - self.loss

    @property
    def matters(self):
        """Whether the loss rises by more than the noise of the batch."""
        return not self.stays and self.rise > _ERRORS * self.error


class Exchanges:
    """Measures `Exchange`s of one model at a batch, as in inference, each by one forward pass.

        x_{i,s-k} ← x_{j,s-k}   for each k > N, s a sample's last step, j = π_k(i) ≠ i

    A permutation π_k of the samples that are longer than k steps leaves the inputs at each lag
    those that they were, and takes what they tell of the sample. It is the same for all k, where
    lengths are. Steps count where they are not masked.

    Args:
        model: A compiled and built Keras model.
        x, y: A batch, as tensors.
        prediction: What the model gives for x.
        runs: The `Run`s of its recurrent layers there.
        trivial: The `TrivialPredictor` there, or `None`.
    """

    def __init__(self, model, x, y, prediction, runs, trivial):
        self._model, self._runs = model, {run.path: run for run in runs}
        self._x, self._y, self._prediction = x, y, prediction
        self._mask = attached_mask(prediction)
        self._trivial = 0.0 if trivial is None else abs(trivial.loss)
        self._known = {}

    def __call__(self, path, back):
        """The `Exchange` of the layer at a path, beyond `back` steps; `None` where it says nothing.

        It says nothing where less than eight samples have other inputs for it, or rows of the
        layer's input are not samples; nor where the loss rises and the layer gives its outputs of
        all steps, for they may be read with no step between.
        """
        if (path, back) not in self._known:
            self._known[path, back] = self._measured(self._runs[path], back)
        return self._known[path, back]

    def _measured(self, run, back):
        samples = {len(part) for part in tree.flatten((self._x, self._prediction))}
        if samples != {len(run.valid)}:
            return None
        exchanged, changed = self._predicted(run, back)
        if changed < _FEWEST:
            return None
        everyone = np.arange(len(run.valid))
        self._weights = _at_last_steps(run, self._y, self._prediction)
        before, after = (self._loss(p, everyone) for p in (self._prediction, exchanged))
        rng = np.random.default_rng(_SEED)
        rises = [
            self._loss(exchanged, some) - self._loss(self._prediction, some)
            for some in rng.choice(everyone, (_RESAMPLED, len(everyone)))
        ]
        error = float(np.std(rises, ddof=1))
        if not math.isfinite(after + error):
            return None
        least = max(_OF_LOSS * abs(before), _OF_TRIVIAL * self._trivial)
        stays = abs(after - before) + _ERRORS * error <= least
        if run.layer.return_sequences and self._weights is None and not stays:
            return None
        return Exchange(back, before, after, error, stays, self._weights is not None)

    def _predicted(self, run, back):
        """What the model gives with the exchange, and how many samples it has changed."""
        sources = partners(np.array(run.valid), back)
        if run.layer.go_backwards:
            sources[..., 1] = sources.shape[1] - 1 - sources[..., 1]
            sources = sources[:, ::-1]
        _, _, nth = run.path.partition("#")
        calls, changed = 0, 0

        def inner_loop(original, sequences, *args, **options):
            nonlocal calls, changed
            calls += len(sequences.shape) == 3
            if len(sequences.shape) == 3 and calls == int(nth or 1):
                exchanged = tf.gather_nd(sequences, sources)
                changed = int(np.any(np.array(exchanged != sequences), axis=(1, 2)).sum())
                sequences = exchanged
            return original(sequences, *args, **options)

        loops = [(run.layer, inner_loop)]
        with left_as_it_was(self._model), shadowed("inner_loop", loops):
            return self._model(self._x, training=False), changed

    def _loss(self, prediction, some):
        """J of some of the samples, regularizers left out."""
        x, y, prediction, weights, mask = tree.map_structure(
            lambda part: None if part is None else tf.gather(part, some),
            (self._x, self._y, prediction, self._weights, self._mask),
        )
        if weights is None and mask is not None:
            weights = weights_of_mask(self._model, mask)
        with left_as_it_was(self._model):
            loss = self._model.compute_loss(x, y, prediction, weights, training=False)
            return float(loss - sum(self._model.losses))


def _at_last_steps(run, y, prediction):
    """Weights (batch, time) that leave of a loss over all steps each sample's last one, from which
    the exchange keeps its distance; `None` where outputs have no time, or another."""
    time = run.valid.shape[1]
    of_steps = [
        tf.is_tensor(part) and part.shape.rank >= 2 and part.shape[1] == time
        for part in (y, prediction)
    ]
    if not all(of_steps) or prediction.shape.rank != 3 or run.layer.go_backwards:
        return None
    valid = np.array(run.valid)
    last = time - 1 - np.argmax(valid[:, ::-1], axis=1)
    return tf.constant(time * (np.arange(time) == last[:, None]), "float32")


def partners(valid, back):
    """From which sample and step each step comes where those further back are exchanged.

    Args:
        valid: (batch, time), false where masked.
        back: N, how many steps before its last one each sample keeps.

    Returns:
        (batch, time, 2), pairs of sample and step; those of a step that is kept are its own.
    """
    batch, time = valid.shape
    lengths = valid.sum(axis=1)
    # The longest first, so that each but the first has a neighbor that is as long as it is.
    order = np.random.default_rng(_SEED).permutation(batch)
    order = order[np.argsort(-lengths[order], kind="stable")]
    # (batch, time), the step at each lag.
    at_lag = time - 1 - np.argsort(~valid[:, ::-1], axis=1, kind="stable")
    sources = np.stack(np.indices((batch, time)), axis=-1)
    for lag in range(back + 1, lengths.max(initial=0)):
        those = order[: np.count_nonzero(lengths > lag)]
        theirs = np.roll(those, 1)
        sources[those, at_lag[those, lag]] = np.stack([theirs, at_lag[theirs, lag]], axis=-1)
    return sources
