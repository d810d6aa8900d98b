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
