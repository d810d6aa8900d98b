"""The models of a search."""

import inspect
import itertools

import keras
import keras_tuner
from keras_tuner.errors import FatalValueError

from kerasrnn.arguments import boolean, fraction, positive_integer
from kerasrnn.callbacks import GradientClipping
from kerasrnn.cells import CELLS
from kerasrnn.initializers import Chrono
from kerasrnn.layers.stack import CONNECTIONS
from kerasrnn.tuning import data, space
from kerasrnn.tuning.network import Network
from kerasrnn.tuning.optimizers import CLIPS, OPTIMIZERS, optimizer
from kerasrnn.tuning.space import among, bounds, choose, choose_between, several
from kerasrnn.tuning.tasks import task_of


class RNNHyperModel(keras_tuner.HyperModel):
    """A compiled recurrent model, with the choices that matter as hyperparameters.

        sequence -> [Embedding or Masking] -> RNNStack -> Dense

    What it learns is the `task`. Its labels, and what the model gives for them:

        "binary"       (batch,), 0 or 1                   (batch, 1), probabilities
        "multiclass"   (batch,), 0 to outputs - 1         (batch, outputs), probabilities
        "multilabel"   (batch, outputs), each 0 or 1      the same, probabilities
        "regression"   (batch, outputs)                   the same
        "tagging"      (batch, time), 0 to outputs - 1    (batch, time, outputs), probabilities
        "forecasting"  (batch, horizon)                   the same
        "language"     (batch, time), the next token      (batch, time, vocabulary_size), logits

    A last axis of length 1 may be left out of the labels, or added. A forecast of several `outputs`
    has them as a further axis, and last one of the `quantiles`, if any.

    Where there is an output per step, masked steps count for neither loss nor accuracy. The labels
    of `"language"` are the inputs one step on, `x, y = tokens[:, :-1], tokens[:, 1:]`, as models of
    Keras take them; where the label is 0, the padding, it does not count. Its perplexity is the
    exponential of the loss.

    In the arguments that are marked *, one value is fixed, and several, as a tuple, are to choose
    from: then there is a hyperparameter of the name in brackets.

    Args:
        task: One of the above.
        vocabulary_size: For sequences of token numbers: how many there are, 0 being the padding.
        features: For sequences of vectors: their length. One of the two must be given.
        outputs: Size of the output: the number of classes, labels, targets or forecast series.
        cells: * [cell] Names of registered cells, or `"all"`.
        units: * [units] Sizes of a layer's states. Default: 32, 64 and 128, if there is no
            `max_parameters`.
        depths: * [depth] Numbers of layers.
        dropouts: * [dropout] Rates, used on the embedding, on every layer's input and before the
            last layer.
        learning_rates: [learning_rate] Lower and upper bound, for any of the `optimizers`; one
            number fixes it.
        clipnorms: [clipnorm] The threshold of a clip, likewise.
        connection: * [connection] As in `RNNStack`; a residual or highway connection has its input
            fitted where it must.
        bidirectional: * [bidirectional] As in `RNNStack`. Default: `True`, but for `"language"`,
            which cannot have it.
        name, tunable: As in `keras_tuner.HyperModel`.
        horizon: For `"forecasting"`: the number of steps ahead.
        quantiles: For `"forecasting"`: which quantiles to forecast, as (0.1, 0.5, 0.9), by
            `kerasrnn.losses.QuantileLoss`; without, the mean, by the squared error.
        mask_value: For sequences of vectors: what all entries of a step hold that is padding.
        max_parameters: In the place of `units`: the most parameters that a model may have, of which
            as many units follow as fit, so that cells are compared at equal size.
        normalization: * [normalization] `None`, `"layer"` for what each layer sees, as in
            `RNNStack`, or `"cell"` for the products inside of cells that have both.
        recurrent_dropouts: * [recurrent_dropout] Rates, for cells with a product with the state.
        zoneouts: * [zoneout] Rates. Each has XLA programs of its own, which take time to compile.
        initializers: * [initializer] `"default"`; for cells with a gate that keeps or writes
            `"chrono"` and `"forget_bias"` (`kerasrnn.initializers.Chrono(T_max)` and
            `ForgetBias(2.0)`); for the simple RNN `"identity"` (IRNN, with ReLU; Le et al., 2015).
        T_max: For `"chrono"`: the longest memory that the task needs, in steps.
        optimizers: * [optimizer] `"adam"`, `"adamw"`, `"rmsprop"` or `"sgd"` (with momentum 0.9),
            as Keras has them.
        warmup_steps: * [warmup_steps] Over how many updates the learning rate rises.
        clips: * [clip] `None`, `"clipnorm"` (per variable) or `"global_clipnorm"` (of all
            together), as in Keras's optimizers. `clips=None` leaves the clip to the callback
            `GradientClipping`, which may not stand beside another.
        batch_sizes: * [batch_size] In the place of the `batch_size` of a search. Default: what the
            search is told.

    Where cells cannot have the same values of `normalization`, `recurrent_dropouts`, `zoneouts` or
    `initializers`, each chooses among those that it can have, by a hyperparameter that is active
    for such cells alone; where there are several, the one for most cells has the name in brackets,
    and the others that of a cell too, as `initializer_simple_rnn`. `clipnorm` is active where there
    is a clip.

    Raises:
        ValueError: an argument outside its range, or that the task or another argument rules out;
            a cell that can have none of the values of one; a `max_parameters` that some choice of
            cell and connection exceeds with the fewest units.

    Example:

    >>> hypermodel = kerasrnn.tuning.RNNHyperModel("binary", features=3)
    >>> tuner = keras_tuner.RandomSearch(hypermodel, "val_accuracy", max_trials=5)
    """

    def __init__(
        self,
        task="binary",
        vocabulary_size=None,
        features=None,
        outputs=1,
        cells=("lstm", "gru"),
        units=None,
        depths=(1, 2, 3),
        dropouts=(0.0, 0.2, 0.4, 0.6),
        learning_rates=(3e-4, 1e-2),
        clipnorms=(0.1, 10.0),
        connection="residual",
        bidirectional=None,
        name=None,
        tunable=True,
        *,
        horizon=None,
        quantiles=None,
        mask_value=None,
        max_parameters=None,
        normalization=None,
        recurrent_dropouts=0.0,
        zoneouts=0.0,
        initializers="default",
        T_max=None,
        optimizers="adam",
        warmup_steps=0,
        clips=("clipnorm", "global_clipnorm", None),
        batch_sizes=None,
    ):
        super().__init__(name=name, tunable=tunable)
        self.task = task
        made = task_of(task, outputs, vocabulary_size, horizon, quantiles)
        self.network = Network(made, vocabulary_size, features, mask_value, T_max)
        self.vocabulary_size = vocabulary_size
        self.features = features
        self.mask_value = mask_value
        self.outputs = outputs
        self.horizon = horizon
        self.quantiles = quantiles

        cells = tuple(CELLS) if cells == "all" else cells
        self.cells = several("cells", cells, space.registered)
        self._set_units(units, max_parameters)
        self.depths = several("depths", depths, positive_integer)
        self.connection = several("connection", connection, among(CONNECTIONS))
        if bidirectional is None:
            bidirectional = task != "language"
        self.bidirectional = several("bidirectional", bidirectional, boolean)
        if task == "language" and True in self.bidirectional:
            raise ValueError(
                "`bidirectional` must be False for task='language': a net that sees the next token "
                f"need not guess it. Received: bidirectional={bidirectional!r}"
            )
        self.dropouts = several("dropouts", dropouts, fraction)
        self._set_options_of_cells(normalization, recurrent_dropouts, zoneouts, initializers, T_max)

        self.optimizers = several("optimizers", optimizers, among(OPTIMIZERS))
        self.learning_rates = bounds("learning_rates", learning_rates)
        self.warmup_steps = several("warmup_steps", warmup_steps, space.count)
        self.clips = several("clips", clips, among(CLIPS))
        self.clipnorms = bounds("clipnorms", clipnorms)
        self.batch_sizes = batch_sizes
        if batch_sizes is not None:
            self.batch_sizes = several("batch_sizes", batch_sizes, positive_integer)
        if max_parameters is not None:
            self._check_smallest()

    def _set_units(self, units, max_parameters):
        if max_parameters is not None:
            positive_integer("max_parameters", max_parameters)
            if units is not None:
                raise ValueError(
                    "`units` follows from `max_parameters`; pass one of the two. "
                    f"Received: units={units!r}, max_parameters={max_parameters}"
                )
        elif units is None:
            units = (32, 64, 128)
        self.units = units if units is None else several("units", units, positive_integer)
        self.max_parameters = max_parameters

    def _set_options_of_cells(
        self, normalization, recurrent_dropouts, zoneouts, initializers, T_max
    ):
        self.normalization = several("normalization", normalization, among(space.NORMALIZATIONS))
        if "layer" in self.normalization and self.features == 1:
            raise ValueError(
                "`normalization` must not hold 'layer' for a single feature, of which it leaves "
                f"nothing. Received: normalization={normalization!r}, features=1"
            )
        self.recurrent_dropouts = several("recurrent_dropouts", recurrent_dropouts, fraction)
        self.zoneouts = several("zoneouts", zoneouts, fraction)
        self.initializers = several("initializers", initializers, among(space.INITIALIZERS))
        if ("chrono" in self.initializers) != (T_max is not None):
            raise ValueError(
                "`T_max` is the longest memory in steps, for 'chrono' among the `initializers` "
                f"and for nothing else. Received: T_max={T_max}, initializers={initializers!r}"
            )
        if T_max is not None:
            Chrono(T_max)
        self.T_max = T_max
        self._of_cells = {
            name: space.OfCell(name, argument, getattr(self, argument), self.cells, arguments)
            for name, argument, arguments in (
                ("normalization", "normalization", space.normalization),
                ("recurrent_dropout", "recurrent_dropouts", space.rate("recurrent_dropout")),
                ("zoneout", "zoneouts", space.rate("zoneout")),
                ("initializer", "initializers", space.initializer(T_max)),
            )
        }

    def build(self, hp):
        """Builds and compiles one model.

        Args:
            hp: `keras_tuner.HyperParameters`.

        Returns:
            A compiled `keras.Model`.
        """
        cell = choose(hp, "cell", self.cells)
        units = choose(hp, "units", self.units) if self.units else None
        chosen = {
            "cell": cell,
            "depth": choose(hp, "depth", self.depths),
            "connection": choose(hp, "connection", self.connection),
            "bidirectional": choose(hp, "bidirectional", self.bidirectional),
            "dropout": choose(hp, "dropout", self.dropouts),
        }
        chosen |= {name: option.choose(hp, cell) for name, option in self._of_cells.items()}
        if units is None:
            units = self.network.units_within(self.max_parameters, chosen)
        model = self.network.model(units, chosen)
        task = self.network.task
        model.compile(self._optimizer(hp), task.loss(), metrics=task.metrics())
        # Before any weights are loaded, so that its state is loaded with them.
        model.optimizer.build(model.trainable_variables)
        if self.batch_sizes:
            # In `fit` the space would get to know it too late.
            choose(hp, "batch_size", self.batch_sizes)
        return model

    def _optimizer(self, hp):
        name = choose(hp, "optimizer", self.optimizers)
        learning_rate = choose_between(hp, "learning_rate", *self.learning_rates)
        warmup_steps = choose(hp, "warmup_steps", self.warmup_steps)
        clip = choose(hp, "clip", self.clips)
        clipped = [one for one in self.clips if one]
        threshold = None
        if len(self.clips) == len(clipped):
            threshold = choose_between(hp, "clipnorm", *self.clipnorms)
        elif clipped:
            with hp.conditional_scope("clip", clipped):
                threshold = choose_between(hp, "clipnorm", *self.clipnorms)
        return optimizer(name, learning_rate, warmup_steps, clip, threshold)

    def _check_smallest(self):
        """Raises an error if a choice of cell, connection and normalization has no place, in the
        deepest and widest stack that may come with it."""
        for cell, connection in itertools.product(self.cells, self.connection):
            possible = {name: option.possible(cell) for name, option in self._of_cells.items()}
            chosen = {
                "cell": cell,
                "depth": max(self.depths),
                "connection": connection,
                "bidirectional": any(self.bidirectional),
                "dropout": 0.0,
            }
            for normalization in possible["normalization"]:
                rest = {name: values[0] for name, values in possible.items()}
                choices = chosen | rest | {"normalization": normalization}
                self.network.check_size(self.max_parameters, choices)

    def fit(self, hp, model, *args, **kwargs):
        """Trains a model, with the batch size of the trial where that is a hyperparameter.

        Args:
            hp: `keras_tuner.HyperParameters`.
            model: What `build` made of them.
            *args, **kwargs: Those of `Model.fit`.

        Returns:
            What `Model.fit` returns.

        Raises:
            keras_tuner.errors.FatalValueError: a `ValueError` that ends a search: arrays, or the
                first batch of a data set, that do not fit the model or the task;
                `GradientClipping` beside a clip of the optimizer's; a `batch_size` beside
                `batch_sizes`, or these for what is no array.
        """
        passed = inspect.signature(keras.Model.fit).bind(model, *args, **kwargs).arguments
        self._check_data(passed)
        self._check_callbacks(passed.get("callbacks"))
        if self.batch_sizes:
            if passed.get("batch_size") is not None or not data.is_array(passed.get("x")):
                raise FatalValueError(
                    "`batch_sizes` sets the batch size of arrays, for which the search is told "
                    f"none. Received: batch_sizes={self.batch_sizes}, "
                    f"batch_size={passed.get('batch_size')}, x of {type(passed.get('x')).__name__}"
                )
            hp = hp if self.tunable else hp.copy()
            kwargs["batch_size"] = choose(hp, "batch_size", self.batch_sizes)
        return model.fit(*args, **kwargs)

    def _check_data(self, passed):
        sets = {("x", "y"): (passed.get("x"), passed.get("y"))}
        if batch := data.first_of(passed.get("x")):
            sets = {("the first x", "the first y"): batch}
        validation = passed.get("validation_data")
        if isinstance(validation, list | tuple) and len(validation) > 1:
            sets["validation_data[0]", "validation_data[1]"] = validation[:2]
        elif batch := data.first_of(validation):
            sets["the first x of validation_data", "the first y of validation_data"] = batch
        for (x_name, y_name), (x, y) in sets.items():
            data.check_inputs(x, self.vocabulary_size, self.features, x_name)
            data.check_labels(y, x, self.task, self.network.task.labels, y_name)

    def _check_callbacks(self, callbacks):
        callbacks = callbacks if isinstance(callbacks, list | tuple) else [callbacks]
        if self.clips != (None,) and any(isinstance(one, GradientClipping) for one in callbacks):
            raise FatalValueError(
                "`clips` must be None where the callback GradientClipping is to clip. "
                f"Received: clips={self.clips}"
            )
