"""A state on disk, for a process that dies."""

import contextlib
import io
import zipfile

import numpy as np

from kerasrnn.files import replacing_file


class StateFile:
    """Holds the state that was written last, whole, whenever the process dies.

    Args:
        directory: A `pathlib.Path` or `Address`; the directory is made where there is none.
        of_one_fit: Whether it goes with the file, if nothing else is in it.
    """

    def __init__(self, directory, of_one_fit=False):
        directory.mkdir(parents=True, exist_ok=True)
        self._of_one_fit = of_one_fit
        self.path = directory / "good_state.npz"
        self._unfinished = directory / "good_state.npz.unfinished"

    def write(self, values):
        with replacing_file(self.path, self._unfinished) as file:
            np.savez(file, *map(_storable, values))

    def read(self, shapes):
        """The values, or `None` where none were written.

        Raises:
            ValueError: the file is damaged, or holds values of other shapes.
        """
        if not self.path.exists():
            return None
        try:
            with self.path.open("rb") as file:
                content = io.BytesIO(file.read())
            with np.load(content, allow_pickle=False) as arrays:
                values = [arrays[name] for name in arrays.files]
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{self.path} cannot be read; delete it to begin anew.") from error
        if [value.shape for value in values] != shapes:
            raise ValueError(
                f"{self.path} holds the state of another model or optimizer. Give each training a "
                "`directory` of its own, or delete the file to begin anew."
            )
        return values

    def remove(self):
        self._unfinished.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
        if self._of_one_fit:
            with contextlib.suppress(OSError):
                self.path.parent.rmdir()


def _storable(value):
    # NumPy would read bfloat16 back as bytes.
    return value.astype("float32") if value.dtype.kind == "V" else value
