"""From a cell's arguments to its attributes and its configuration, with a line per constructor and
none per argument."""

import keras

from kerasrnn.arguments import RESOLVERS, boolean, check_spelling, own_parameters, resolved


def parameters(cls):
    """The arguments of a cell: those its constructor names, in order, then those that the
    constructors above it name, but for what the cell `lacks`."""
    named = {}
    for above in cls.__mro__:
        if "__init__" in vars(above) and issubclass(above, Configured):
            named = named | {k: p for k, p in own_parameters(above).items() if k not in named}
    return {name: p for name, p in named.items() if name not in cls.lacks}


class Configured(keras.layers.Layer):
    """A layer whose constructors, its own and those above it, call `_configure`.

    Class attributes:
        lacks: Arguments of the classes above that have no meaning for this one.
        identity: Those of them for which "linear" says as much.
    """

    lacks = identity = ()

    def _configure(self, cls, arguments):
        """Sets what the constructor of `cls` was called with.

        `arguments` is the constructor's `locals()`, as it stands at its first line.
        """
        named = own_parameters(cls)
        received = {name: arguments[name] for name in named} | arguments["kwargs"]
        for name in self.lacks:
            value = received.pop(name, None)
            # A class without a constructor of its own gets what it lacks from the one above.
            default = named[name].default if name in named else None
            identity = name in self.identity and value == "linear"
            if value not in (None, default) and not identity:
                raise ValueError(
                    f"{type(self).__name__} has no `{name}`. Received: {name}={value!r}"
                )
        known = {name: p for name, p in parameters(cls).items() if name not in self.lacks}
        values = {name: received.pop(name, p.default) for name, p in known.items()}
        check_spelling(type(self).__name__, received, known)
        super().__init__(**received)
        self._argument_names = tuple(known)
        for name, value in values.items():
            value = resolved(name, value)
            if isinstance(known[name].default, bool):
                value = boolean(name, value)
            setattr(self, name, value)

    def get_config(self):
        config = super().get_config()
        for name in self._argument_names:
            resolver = RESOLVERS.get(name.rpartition("_")[2])
            value = getattr(self, name)
            config[name] = resolver.serialize(value) if resolver else value
        return config
