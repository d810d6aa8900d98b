"""Layers around one registered cell, whose arguments they take beside their own."""

import re
from operator import attrgetter

from kerasrnn import cells
from kerasrnn.arguments import one_of, own_parameters
from kerasrnn.cells.base import Cell
from kerasrnn.cells.configured import parameters
from kerasrnn.layers.rnn import RNN

# An argument, or several, in a docstring.
_ENTRY = re.compile(r"^ {8}(\w+(?:, \w+)*): (.*(?:\n {12}.*)*)", re.M)


def _further_arguments(layer):
    """What a layer's docstring says of all that its signature and Keras's docstrings leave out: of
    the cell's arguments what the cell's own docstrings do."""
    names = parameters(layer.cell_class).keys() - own_parameters(layer).keys()
    # A cell without a product with the state refuses it.
    if not layer.cell_class.recurrent_gates:
        names -= {"normalization"}
    lines = ["Further arguments, the cell's:"]
    for cell_class in layer.cell_class.__mro__:
        if issubclass(cell_class, Cell):
            for listed, text in _ENTRY.findall(cell_class.__doc__):
                some = [name for name in listed.split(", ") if name in names]
                lines += [f"        {', '.join(some)}: {text}"] if some else []
                names -= set(some)
    lines += ["", "    Further call argument:"]
    lines += ["        reset: (batch, time), boolean: `True` where an episode begins, so that the"]
    lines += ["            state is set back before this step; more in `kerasrnn.layers.RNN`."]
    return "\n".join(lines)


class OneCellLayer(RNN):
    """A layer that takes its cell's arguments beside its own, and shows them as attributes."""

    cell_name = None

    def __init_subclass__(cls):
        super().__init_subclass__()
        cls.cell_class = cells.CELLS[cls.cell_name]
        for name in parameters(cls.cell_class):
            of_cell = property(attrgetter(f"cell.{name}"), doc=f"The cell's `{name}`.")
            setattr(cls, name, of_cell)
        if cls.__doc__:
            cls.__doc__ = cls.__doc__.replace("{further}", _further_arguments(cls))

    def __init__(self, units, *others, **kwargs):
        if others:
            raise TypeError(
                f"{type(self).__name__} takes `units` alone by its place; name what else there is, "
                f"as return_sequences=True. Received: {', '.join(map(repr, (units, *others)))}"
            )
        super().__init__(self.cell_name, units=units, **kwargs)

    def _configure(self, cls, arguments):
        """Sets what the constructor of `cls` was called with; `arguments` is its `locals()`."""
        named = {name: arguments[name] for name in own_parameters(cls)} | arguments["kwargs"]
        has_cudnn = "use_cudnn" in named
        use_cudnn = one_of(("auto", True, False), "use_cudnn", named.pop("use_cudnn", "auto"))
        super().__init__(self.cell_name, **named)
        if has_cudnn:
            self.use_cudnn = use_cudnn
            self._set_supports_jit()

    def get_config(self):
        config = super().get_config()
        del config["cell"]
        cell = self.cell.get_config()
        config |= {name: cell[name] for name in parameters(self.cell_class)}
        if "use_cudnn" in vars(self):
            config["use_cudnn"] = self.use_cudnn
        return config

    @classmethod
    def from_config(cls, config):
        return cls(**config)
