"""What an exporter returns, a path with a report, and where it may write."""

import contextlib
import dataclasses
import importlib
import importlib.metadata
import io
import json
import pathlib

import keras
import tensorflow as tf

from kerasrnn.arguments import boolean
from kerasrnn.files import Address, directories, located, replacing_file


@dataclasses.dataclass(frozen=True)
class Report:
    """What an exporter says of the file that it has written and run.

    Attributes:
        format: "saved_model", "litert" or "onnx".
        operations: How often each operation of the runtime stands in the file, by its name, in
            alphabetical order.
        size: Its bytes.
        difference: The largest difference of its outputs to the model's on the inputs of the check,
            divided by the largest output where that is above 1.
        bound: The difference from which on nothing would have been written.
        dynamic: What the file leaves open, of "batch" and "time".
        shapes: The shapes of the inputs by their names, `None` where a size is open.

    >>> kerasrnn.export.Report("onnx", {"LSTM": 1}, 2048, 1e-7, 1e-5, ("batch",), {"x": (None, 3)})
    Report of the onnx file: 2,048 bytes, batch open, largest difference 1.0e-07 (allowed 1e-05)
      input x: (None, 3)
      operations: LSTM
    """

    format: str
    operations: dict
    size: int
    difference: float
    bound: float
    dynamic: tuple
    shapes: dict

    @classmethod
    def of(cls, format, operations, size, difference, bound, specs):
        """With what the `tf.TensorSpec`s of the inputs, by their names, leave open."""
        shapes = {name: tuple(spec.shape) for name, spec in specs.items()}
        return cls(format, operations, size, difference, bound, left_open(specs), shapes)

    def __repr__(self):
        dynamic = " and ".join(self.dynamic) or "nothing"
        named = [f"{k} x {v}" if v > 1 else k for k, v in self.operations.items()]
        inputs = [f"\n  input {name}: {shape}" for name, shape in self.shapes.items()]
        return (
            f"Report of the {self.format} file: {self.size:,} bytes, {dynamic} open, largest "
            f"difference {self.difference:.1e} (allowed {self.bound:g}){''.join(inputs)}\n"
            f"  operations: {', '.join(named)}"
        )


class Artifact(type(pathlib.Path())):
    """The path of what was exported, a `pathlib.Path`, since that is what callers open, join and
    hand on, with a `report` beside.

    Attributes:
        report: The `Report`; `None` for paths that are made from this one.

    >>> (kerasrnn.export.Artifact("net") / "signature.json").name
    'signature.json'
    """

    report = None


class RemoteArtifact(str):
    """The address of what was exported, a string, with a `report` beside as in `Artifact`.

    >>> kerasrnn.export.RemoteArtifact("gs://bucket/net")
    'gs://bucket/net'
    """

    report = None


def left_open(specs):
    """Of "batch" and "time" what no specification fixes."""
    shapes = [tuple(spec.shape) for spec in specs.values()]
    batch = any(shape[:1] == (None,) for shape in shapes)
    time = any(None in shape[1:] for shape in shapes)
    return tuple(name for name, is_open in (("batch", batch), ("time", time)) if is_open)


def reported(place, report):
    """The place as what an exporter returns."""
    kind = RemoteArtifact if isinstance(place, Address) else Artifact
    artifact = kind(str(place))
    artifact.report = report
    return artifact


def directory_for(path, overwrite):
    """The place of a directory that `path` names.

    Raises:
        FileExistsError: `path` exists, is not an empty directory, and `overwrite` is `False`.
        NotADirectoryError: it lies below a file.
        TypeError, ValueError: it is no path, or `overwrite` no boolean.
    """
    place = _below_directories(path)
    is_free = not place.exists() or (place.is_dir() and not any(place.iterdir()))
    if not boolean("overwrite", overwrite) and not is_free:
        raise FileExistsError(
            "`path` must name a new or empty directory; choose another or pass overwrite=True. "
            f"Received: path={str(place)!r}, which exists"
        )
    return place


def file_for(path, suffix, overwrite):
    """The place of a file that `path` names.

    Raises:
        FileExistsError: `path` exists, and `overwrite` is `False`.
        IsADirectoryError: it is a directory.
        NotADirectoryError: it lies below a file.
        TypeError, ValueError: it is no path, or has another suffix, or `overwrite` is no boolean.
    """
    place = _below_directories(path)
    if not place.name.endswith(suffix):
        raise ValueError(f"`path` must end in {suffix!r}. Received: path={path!r}")
    if place.exists() and place.is_dir():
        raise IsADirectoryError(f"`path` must name a file. Received: path={path!r}, a directory")
    if not boolean("overwrite", overwrite) and place.exists():
        raise FileExistsError(
            "`path` must name a new file; choose another or pass overwrite=True. "
            f"Received: path={str(place)!r}, which exists"
        )
    return place


def _below_directories(path):
    place = located("path", path).resolve()
    # Behind an address there may be no directories.
    above = [] if isinstance(place, Address) else place.parents
    if file := next((one for one in above if one.exists() and not one.is_dir()), None):
        raise NotADirectoryError(
            f"`path` must lie in directories. Received: path={path!r}, below the file {file}"
        )
    return place


@contextlib.contextmanager
def file_in_place(place):
    """A buffer whose bytes take the place of the file `place` once the block has gone well."""
    content = io.BytesIO()
    yield content
    with contextlib.ExitStack() as made:
        if not isinstance(place, Address):
            made.enter_context(directories(place.parent))
        with replacing_file(place) as file:
            file.write(content.getvalue())


def needed(module, extra):
    """A module of a runtime or converter that comes with one of this package's extras.

    Raises:
        ImportError: it is not there; the message has the line for pip.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name.partition(".")[0] != module.partition(".")[0]:
            raise
        raise ImportError(
            f"This format needs the package {module.partition('.')[0]}: "
            f"pip install 'kerasrnn[{extra}]'",
            name=error.name,
        ) from error


def write_signature(directory, signatures, class_names=None):
    """Writes `signature.json`: what goes in and comes out by name, with dtypes and shapes, the
    names of the classes, and the versions that wrote it.

    Args:
        directory: A `pathlib.Path`.
        signatures: For each signature by name a pair of dictionaries, the specifications of its
            inputs and of its outputs.
        class_names: A list of strings, or `None`.
    """

    def shown(specs):
        return {
            name: {"dtype": tf.as_dtype(spec.dtype).name, "shape": list(spec.shape)}
            for name, spec in specs.items()
        }

    content = {
        "signatures": {
            name: {"inputs": shown(inputs), "outputs": shown(outputs)}
            for name, (inputs, outputs) in signatures.items()
        },
        "class_names": class_names,
        "versions": {
            "kerasrnn": importlib.metadata.version("kerasrnn"),
            "keras": keras.version(),
            "tensorflow": tf.version.VERSION,
        },
    }
    text = json.dumps(content, indent=2, ensure_ascii=False)
    (directory / "signature.json").write_text(text + "\n", encoding="utf-8")


def size_of(directory):
    """The bytes of all files in a directory."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
