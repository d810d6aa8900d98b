"""Layers around one registered cell, whose arguments they take beside their own."""

import re
from inspect import Parameter
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
    the cell's arguments what the cell's own docstrings do, and their defaults."""
    of_cell = parameters(layer.cell_class)
    # A layer without a constructor of its own shows no argument in its signature.
    shown = own_parameters(layer) if "__init__" in vars(layer) else {}
    names = of_cell.keys() - shown.keys()
    # A cell without a product with the state refuses it.
    if not layer.cell_class.recurrent_gates:
        names -= {"normalization"}
    lines = ["Further arguments, the cell's:"]
    for cell_class in layer.cell_class.__mro__:
        if issubclass(cell_class, Cell):
            for listed, text in _ENTRY.findall(cell_class.__doc__):
                some = [name for name in listed.split(", ") if name in names]
                if some:
                    default = "" if "Default" in text else _default(of_cell, some)
                    lines.append(f"        {', '.join(some)}: {text}{default}")
                names -= set(some)
    lines += ["", "    Further call argument:"]
    lines += ["        reset: (batch, time), boolean: `True` where an episode begins, so that the"]
    lines += ["            state is set back before this step; more in `kerasrnn.layers.RNN`."]
    return "\n".join(lines)


def _default(parameters, names):
    """The default of arguments that share one, as a sentence; nothing where there is none."""
    defaults = {repr(parameters[name].default) for name in names}
    if len(defaults) > 1 or parameters[names[0]].default is Parameter.empty:
        return ""
    return "\n            Default: `{}`.".format(defaults.pop().replace("'", '"'))


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
