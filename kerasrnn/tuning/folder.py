"""What a search keeps on disk: whenever the process dies, each file is there whole, or the one
before it is."""

import contextlib
import json
import os
import pickle
import re

import keras

from kerasrnn.files import MISSING, move, remove_directory, replacing_file


def replace_json(path, value):
    """Writes what `json` can write to a `pathlib.Path` or `Address`; makes missing directories."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing_file(path, unfinished(path)) as file:
        file.write(json.dumps(value).encode())


def write_json(path, value):
    """The same, and then once more beside it."""
    for place in (path, backup_of(path)):
        replace_json(place, value)


def read_json(path):
    """The value that was written, from the backup where the file is damaged or gone; `None` where
    there is neither.

    Raises:
        ValueError: both are damaged.
    """
    return _first_readable(path, json.loads)


class StateFile:
    """The state of a training that is under way.

    It is a pickle, as which Python reads a folder of yours, and of nobody whom you do not trust.

    Args:
        path: A `pathlib.Path` or `Address`; missing directories are made.
    """

    def __init__(self, path):
        self.path = path

    def write(self, state):
        """Takes the place of the state before, which stays beside it as a backup."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing_file(self.path, unfinished(self.path)) as file:
            pickle.dump(state, file)
            # None at first, and none where another worker has just done the same.
            with contextlib.suppress(*MISSING):
                move(self.path, backup_of(self.path))

    def read(self):
        """The last state that is whole, or `None` where there is none.

        Raises:
            ValueError: there are files, and all are damaged.
        """
        return _first_readable(self.path, pickle.loads)

    def remove(self):
        for place in (self.path, backup_of(self.path), unfinished(self.path)):
            place.unlink(missing_ok=True)


class Replaced:
    """A search that another one is to replace. It is put aside, beside its folder, until it is
    clear that the other one goes well: whatever ends that before then has it back in its place.

    Args:
        folder: A `pathlib.Path` or `Address`, the folder of both.
    """

    def __init__(self, folder):
        self._folder, self._aside = folder, folder.parent / f"{folder.name}.replaced"

    def put_aside(self):
        """Leaves an empty folder. A search that came to nothing before it, its process having been
        killed, is not worth keeping; the one that it was to replace is."""
        if self._aside.exists():
            self._clear()
        elif self._folder.exists():
            move(self._folder, self._aside)
        self._folder.mkdir(parents=True, exist_ok=True)

    def put_back(self):
        """Gives whether there was one."""
        if not self._aside.exists():
            return False
        self._clear()
        move(self._aside, self._folder)
        return True

    def remove(self):
        if self._aside.exists():
            remove_directory(self._aside)

    def _clear(self):
        if self._folder.exists():
            remove_directory(self._folder)


class WholeWeights(keras.callbacks.Callback):
    """Has the weights that another callback saves after an epoch take the place of those before
    them at once, where Keras writes into the file that is there. To be put behind the other.

    Args:
        path: The file, a `pathlib.Path` or `Address`; the other has to write to `unfinished(path)`.
    """

    def __init__(self, path):
        super().__init__()
        self._path, self._unfinished = path, unfinished(path)

    def on_train_begin(self, logs=None):
        # Of a process that died while it wrote.
        self._unfinished.unlink(missing_ok=True)

    def on_epoch_end(self, epoch, logs=None):
        with contextlib.suppress(*MISSING):
            move(self._unfinished, self._path)


def backup_of(path):
    return path.parent / f"{path.name}.backup"


def unfinished(path):
    """Where a file is written until it is whole: each worker has a place that it finds again. One
    that was taken for lost may write at the same time as the one that has its trial now."""
    worker = re.sub(r"\W", "_", os.environ.get("KERASTUNER_TUNER_ID", "alone"))
    return path.parent / f"{worker}.unfinished.{path.name}"


def _first_readable(path, load):
    damaged = []
    for place in (path, backup_of(path)):
        try:
            with place.open("rb") as file:
                content = file.read()
        # Another worker may have moved or removed it a moment ago.
        except MISSING:
            continue
        try:
            return load(content)
        # A pickle that is cut off or mixed up may raise any.
        except Exception as error:
            damaged.append((place, error))
    if damaged:
        places = " and ".join(str(place) for place, _ in damaged)
        raise ValueError(
            f"{places} cannot be read ({damaged[0][1]}). Put back a copy of it, or begin anew with "
            "`overwrite=True`."
        ) from damaged[0][1]
    return None
