"""What a search keeps on disk: whenever the process dies, each file is there whole, or the one
before it is."""

import json
import pickle

import tensorflow as tf

from kerasrnn.files import replacing_file


def replace_json(path, value):
    """Writes what `json` can write to a `pathlib.Path` or `Address`; makes missing directories."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing_file(path, _beside(path, "unfinished")) as file:
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
        with replacing_file(self.path, _beside(self.path, "unfinished")) as file:
            pickle.dump(state, file)
            if self.path.exists():
                tf.io.gfile.rename(str(self.path), str(backup_of(self.path)), overwrite=True)

    def read(self):
        """The last state that is whole, or `None` where there is none.

        Raises:
            ValueError: there are files, and all are damaged.
        """
        return _first_readable(self.path, pickle.loads)

    def remove(self):
        for place in (self.path, backup_of(self.path), _beside(self.path, "unfinished")):
            place.unlink(missing_ok=True)


class Replaced:
    """A search that another one is to replace. It is put aside, beside its folder, until it is
    clear that the other one goes well: whatever ends that before then has it back in its place.

    Args:
        folder: A `pathlib.Path` or `Address`, the folder of both.
    """

    def __init__(self, folder):
        self._folder, self._aside = folder, _beside(folder, "replaced")

    def put_aside(self):
        """Leaves an empty folder. A search that came to nothing before it, its process having been
        killed, is not worth keeping; the one that it was to replace is."""
        if self._aside.exists():
            self._clear()
        elif self._folder.exists():
            tf.io.gfile.rename(str(self._folder), str(self._aside))
        self._folder.mkdir(parents=True, exist_ok=True)

    def put_back(self):
        """Gives whether there was one."""
        if not self._aside.exists():
            return False
        self._clear()
        tf.io.gfile.rename(str(self._aside), str(self._folder))
        return True

    def remove(self):
        if self._aside.exists():
            tf.io.gfile.rmtree(str(self._aside))

    def _clear(self):
        if self._folder.exists():
            tf.io.gfile.rmtree(str(self._folder))


def backup_of(path):
    return _beside(path, "backup")


def _beside(path, ending):
    return path.parent / f"{path.name}.{ending}"


def _first_readable(path, load):
    damaged = []
    for place in (path, backup_of(path)):
        if not place.exists():
            continue
        try:
            with place.open("rb") as file:
                return load(file.read())
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
