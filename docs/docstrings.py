"""Griffe's view of the package: docstrings and exports as at runtime, sections as it knows them."""

import contextlib
import importlib
import inspect
import os
import re
import sys

import griffe

# Our sections by what Griffe calls them.
_SECTIONS = {
    "Further arguments, the cell's:": "Other Parameters:",
    "Class attributes:": "Attributes:",
}
_EXAMPLE = re.compile(r"^Example:\n\n(.+\Z|.+?(?=\n\n[A-Z]))", re.M | re.S)


class AtRuntime(griffe.Extension):
    """Imports each object: layers add their cell's arguments to their docstrings, and some lists of
    exports are computed."""

    def on_package(self, *, pkg, **kwargs):
        for module in pkg.modules.values():
            exports = getattr(_imported(module.path), "__all__", None)
            if exports is None:
                continue
            # Griffe reads the list and does not compute it.
            module.exports = list(exports)
            for name in set(module.members) - set(exports) - set(module.modules):
                del module.members[name]

    def on_object(self, *, obj, **kwargs):
        if obj.is_module or obj.docstring is None:
            return
        package, _, _ = obj.module.path.rpartition(".")
        if "." in package:
            _imported(package)
            # Another backend's, which may not be installed, its package does not import.
            if obj.module.path not in sys.modules:
                return
        found = _imported(obj.module.path)
        for name in obj.path.removeprefix(obj.module.path + ".").split("."):
            found = getattr(found, name)
        text = inspect.getdoc(found) or obj.docstring.value
        for ours, theirs in _SECTIONS.items():
            text = text.replace(ours, theirs)
        obj.docstring.value = _EXAMPLE.sub(_indented, text)


def _imported(name):
    # TensorFlow's log at its start would stand among the warnings of the build.
    with open(os.devnull, "w") as nowhere, contextlib.ExitStack() as stack:
        error = os.dup(2)
        stack.callback(os.close, error)
        stack.callback(os.dup2, error, 2)
        os.dup2(nowhere.fileno(), 2)
        return importlib.import_module(name)


def _indented(match):
    return "Examples:\n" + "\n".join(f"    {line}" for line in match[1].splitlines())
