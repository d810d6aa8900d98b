import inspect
import numbers

import keras
import numpy as np
from keras import ops, tree

from kerasrnn import cells
from kerasrnn.arguments import (
    boolean,
    check_spelling,
    fraction,
    one_of,
    own_parameters,
    positive_integer,
)
from kerasrnn.cells.configured import parameters
from kerasrnn.initializers import numbered
from kerasrnn.layers.bidirectional import Bidirectional
from kerasrnn.layers.checks import fitted_mask
from kerasrnn.layers.connections import DenselyConnected, Highway, Normalized, Residual
from kerasrnn.layers.group import Connected
from kerasrnn.layers.rnn import RNN

CONNECTIONS = (None, "residual", "highway", "dense")
NORMALIZATIONS = (None, "layer")
RATES = ("dropout", "recurrent_dropout", "zoneout")


@keras.saving.register_keras_serializable("kerasrnn")
class RNNStack(Connected):
    """Recurrent layers on top of each other (Graves et al., 2013, section 2), with direct
    connections where asked for.

        h^0 = x
        h^l = RNN_l(h^{l-1})                            connection=None
        h^l = h^{l-1} + RNN_l(h^{l-1})                  "residual"
        h^l = t ∘ RNN_l(h^{l-1}) + (1 - t) ∘ h^{l-1}    "highway", t = σ(W_l h^{l-1} + b_l)
        h^l = RNN_l([h^0; h^1; ...; h^{l-1}])           "dense"

    and RNN_l(LN_l(·)) for RNN_l(·) with `normalization="layer"`. Two to four layers train plain;
    deeper stacks need a connection (CS224N 2019, lecture 7).

    Args:
        cell: Name of a registered cell (a key of `kerasrnn.cells.CELLS`), or a function that makes
            a new cell, of this package or of Keras: it is called with a layer's units and, as
            keywords, those of `dropout`, `recurrent_dropout` and `zoneout` that are not 0. The cell
            has to have that many units, the precision of the stack, and these rates as attributes.
            Default: `"lstm"`.
        units: Positive integer, size of each layer's states, or a list of one per layer.
            Default: 256.
        depth: Positive integer, number of layers. Default: 4, or as many as `units` lists.
        connection: `None`, `"residual"`, `"highway"` or `"dense"`.
        bidirectional: Whether each layer runs in both directions; its output is then 2 units wide.
        normalization: `None`, or `"layer"` to normalize what each layer sees, the first included.
        dropout: Fraction of each layer's inputs to drop, in [0, 1), the same ones at all steps.
        recurrent_dropout: Fraction of the previous state to drop, likewise.
        zoneout: Fraction of the states to leave as they are, as in the cell.
        project: Whether a learned matrix fits the input to a residual or highway connection where
            its width differs from the layer's; other stacks take any width as it is, and need none.
        return_sequences: Whether to return every step or the last one only. Default: `False`.
        return_state: Whether to return the final states too.
        go_backwards: Whether to run from the last step to the first; the outputs come in that
            order too, and their mask with them. What a Bidirectional around the stack sets.
        stateful: Whether a batch starts from the final states of the one before.
        **kwargs: Further arguments of the cell, as `initial_state="learned"`, and of a Keras layer;
            those that share a name with the stack's own, as a cell's `normalization` or the `depth`
            of an `rhn`, are the stack's: give `cell` as a function for them, as
            `lambda units, **rates: RHNCell(units, depth=5, **rates)`.

    Call arguments: `inputs` (batch, time, features), `initial_state`, `mask` (batch, time),
    `training` and `reset`, as `sequences` and the others in `kerasrnn.layers.RNN`.

    Returns:
        (batch, time, width) with `return_sequences`, else (batch, width); width is the last layer's
        units, or twice that when bidirectional. As in `Bidirectional`, the last step of the
        backward half is the first in time. Masked steps count for neither. With `return_state` the
        states follow, each (batch, units): layer by layer from the first, in a bidirectional one
        forward before backward, and within that in the order of the cell (h, c for an LSTM).
        `initial_state` takes them in that order, in one list or in one per layer. Where the states
        alone are used, what only the output passes through, as the last layer's gate, is not
        trained, and Keras warns of it.

    Raises:
        ValueError: an argument outside its range; a function that makes other cells than it is
            asked for, or the same one again; `bidirectional` with `stateful`, since the
            backward direction has no batch before; an input of another rank than 3; at build,
            connections whose widths differ without `project=True`; states that are not those of
            the stack.

    Example:

    >>> stack = kerasrnn.layers.RNNStack("lstm", 8, 2, connection="residual", bidirectional=True)
    >>> stack(np.ones((2, 5, 16), "float32")).shape
    TensorShape([2, 16])
    """

    def __init__(
        self,
        cell="lstm",
        units=256,
        depth=None,
        connection=None,
        bidirectional=False,
        normalization=None,
        dropout=0.0,
        recurrent_dropout=0.0,
        zoneout=0.0,
        project=False,
        return_sequences=False,
        return_state=False,
        go_backwards=False,
        stateful=False,
        **kwargs,
    ):
        options = {}
        if isinstance(cell, str):
            made_by = cells.get(cell)
            # What the cell lacks is for it to refuse.
            known = [*parameters(made_by), *made_by.lacks]
            check_spelling("RNNStack", kwargs, [*known, *own_parameters(RNNStack)])
            options = {name: kwargs.pop(name) for name in known if name in kwargs}
        elif isinstance(cell, keras.layers.Layer) or not callable(cell):
            raise ValueError(
                "Each layer needs a cell of its own: `cell` must be a class or function that makes "
                "one, as `lambda units, **rates: MGUCell(units, **rates)`, or one of the names "
                f"{', '.join(cells.CELLS)}. Received: cell={cell!r}"
            )
        else:
            for name in {*parameters(cells.Cell)} & {*kwargs}:
                raise ValueError(
                    f"`{name}` is the cell's: pass it on in the function that makes it. "
                    f"Received: {name}={kwargs[name]!r}, cell={cell!r}"
                )
        super().__init__(go_backwards, **kwargs)
        units = units.tolist() if isinstance(units, np.ndarray) else units
        listed = list(units) if isinstance(units, list | tuple) else None
        if listed is not None and (not listed or depth not in (None, len(listed))):
            raise ValueError(
                "`units` must be one number or a list of one per layer. "
                f"Received: units={listed}, depth={depth}"
            )
        if depth is None:
            depth = len(listed) if listed else 4
        self.cell_options = options
        self.depth = positive_integer("depth", depth)
        every = [positive_integer("units", one) for one in listed or [units] * self.depth]
        self.cell = cell
        self.units = every if listed else every[0]
        self.connection = one_of(CONNECTIONS, "connection", connection)
        self.bidirectional = boolean("bidirectional", bidirectional)
        self.normalization = one_of(NORMALIZATIONS, "normalization", normalization)
        self.dropout = fraction("dropout", dropout)
        self.recurrent_dropout = fraction("recurrent_dropout", recurrent_dropout)
        # A cell of several states takes one for each, too, and checks them.
        self.zoneout = zoneout if isinstance(zoneout, dict) else fraction("zoneout", zoneout)
        self.project = boolean("project", project)
        stateful = boolean("stateful", stateful)
        if self.bidirectional and stateful:
            raise ValueError(
                "A bidirectional stack cannot be stateful: its backward direction would have to "
                "start from the batch to come. Received: bidirectional=True, stateful=True"
            )
        made = [self._cell(units, level + 1) for level, units in enumerate(every)]
        if len(set(map(id, made))) < self.depth:
            raise ValueError(
                "`cell` must make a new cell every time it is called, or the layers would share "
                f"their weights. Received: cell={cell!r}"
            )
        options = {"return_state": boolean("return_state", return_state), "stateful": stateful}
        levels = [self._level(one, level + 1, options) for level, one in enumerate(made)]
        if connection == "dense":
            levels = [DenselyConnected(levels, dtype=self.dtype_policy, name="dense")]
        self.contain(levels)
        self.return_sequences = boolean("return_sequences", return_sequences)
        # A function is saved as what it made.
        self._made = [keras.saving.serialize_keras_object(one) for one in made]

    def _cell(self, units, level):
        rates = {name: getattr(self, name) for name in RATES if getattr(self, name)}
        if not isinstance(self.cell, str):
            return self._made_by_function(units, rates)
        name = f"{self.cell}_cell_{level}"
        # Each layer draws for itself.
        saved = {k: keras.saving.serialize_keras_object(v) for k, v in self.cell_options.items()}
        options = {k: keras.saving.deserialize_keras_object(v) for k, v in saved.items()}
        options = {k: numbered(v, level - 1) for k, v in options.items()}
        # What is no number is for the cell to refuse.
        if isinstance(options.get("seed"), numbers.Integral):
            options["seed"] += level - 1
        options |= {**rates, "dtype": self.dtype_policy}
        return cells.get(self.cell)(units, **options, name=name)

    def _made_by_function(self, units, rates):
        """The cell, if it is as the stack's arguments say."""
        try:
            inspect.signature(self.cell).bind(units, **rates)
        except TypeError as error:
            raise ValueError(
                "A function that makes the cells must take their units and, as keywords, "
                f"{', '.join(RATES)} where they are not 0. Received: cell={self.cell!r}, to be "
                f"called with {units} and {rates}"
            ) from error
        cell = self.cell(units, **rates)
        size = (
            getattr(cell, "output_size", None) or tree.flatten(getattr(cell, "state_size", None))[0]
        )
        policy = getattr(cell, "dtype_policy", self.dtype_policy)
        asked = {"units": units, "dtype": self.dtype_policy.name, **rates}
        made = {"units": size, "dtype": policy.name} | {k: getattr(cell, k, None) for k in rates}
        if made != asked:
            raise ValueError(
                "A function that makes the cells must heed what the stack asks for; a dtype it has "
                f"to pass on by itself. Asked for: {asked}. Received: a {type(cell).__name__} with "
                f"{made}"
            )
        return cell

    def _level(self, cell, level, options):
        dtype = self.dtype_policy
        kind = self.cell if isinstance(self.cell, str) else "rnn"
        layer = RNN(cell, return_sequences=True, **options, dtype=dtype, name=f"{kind}_{level}")
        if self.bidirectional:
            layer = Bidirectional(layer, dtype=dtype, name=f"bidirectional_{level}")
        if self.normalization == "layer":
            layer = Normalized(layer, dtype=dtype, name=f"normalized_{level}")
        if self.connection == "residual":
            layer = Residual(layer, self.project, dtype=dtype, name=f"residual_{level}")
        if self.connection == "highway":
            layer = Highway(layer, self.project, dtype=dtype, name=f"highway_{level}")
        return layer

    def connect(self, x, run, mask):
        for layer in self.layers:
            x = run(layer, x)
        return x if self.return_sequences else self.last(x, mask)

    def last(self, y, mask):
        """The output of each row at its last step that is not masked, zeros where there is none."""
        if mask is None:
            mask = ops.ones(ops.shape(y)[:2], "bool")
        mask = ops.cast(fitted_mask(mask, y), "bool")
        mask = mask if len(mask.shape) == 2 else ops.squeeze(mask, axis=2)
        # One row that stands for all may show as such in the running graph alone.
        mask = ops.broadcast_to(mask, ops.shape(y)[:2])
        steps = ops.arange(ops.shape(y)[1], dtype="int32")
        end = ops.shape(y)[1] - 1
        # Initial values for a batch of no rows.
        last = ops.max(ops.where(mask, steps, 0), axis=1, initial=0)
        first = ops.min(ops.where(mask, steps, end), axis=1, initial=end)

        def at(step, part):
            step = ops.reshape(step, (-1, *[1] * (len(part.shape) - 1)))
            return ops.take_along_axis(part, step, axis=1)[:, 0]

        if self.bidirectional:
            forward, backward = ops.split(y, 2, axis=-1)
            out = ops.concatenate([at(last, forward), at(first, backward)], axis=-1)
        else:
            out = at(last, y)
        some = ops.reshape(ops.any(mask, axis=1), (-1, *[1] * (len(out.shape) - 1)))
        return ops.where(some, out, ops.zeros_like(out))

    def compute_mask(self, inputs, mask=None):
        # Its layers return sequences, whatever it returns itself.
        masks = super().compute_mask(inputs, mask)
        if self.return_sequences:
            return masks
        return [None for _ in masks] if self.return_state else None

    def compute_output_shape(self, input_shape):
        shape = super().compute_output_shape(input_shape)
        if self.return_sequences:
            return shape
        if not self.return_state:
            return (shape[0], shape[-1])
        y, *states = shape
        return ((y[0], y[-1]), *states)

    def get_config(self):
        config = {name: getattr(self, name) for name in own_parameters(type(self))}
        if not isinstance(self.cell, str):
            config["cell"] = list(self._made)
        options = {k: keras.saving.serialize_keras_object(v) for k, v in self.cell_options.items()}
        return super().get_config() | config | options

    @classmethod
    def from_config(cls, config):
        if isinstance(config["cell"], list):
            made = iter([keras.saving.deserialize_keras_object(one) for one in config["cell"]])
            config = config | {"cell": lambda units, **rates: next(made)}
        return cls(**config)
