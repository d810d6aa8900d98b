"""Files and directories, on this machine or behind an address such as gs://bucket/models: what an
argument may say of their place, and how they are replaced.

On this machine that is at once or not at all: whoever looks finds the old content whole or the new
one. Behind an address `tf.io.gfile` does what its file system can, where TensorFlow is Keras's
backend; elsewhere addresses are refused.
"""

import contextlib
import dataclasses
import os
import pathlib
import re
import secrets
import shutil
import tempfile

from kerasrnn.backends import require_tensorflow, tf

# What is raised where a file is not there, and where it cannot be had for whatever reason.
MISSING = (FileNotFoundError,) if tf is None else (FileNotFoundError, tf.errors.NotFoundError)
UNREADABLE = (OSError,) if tf is None else (OSError, tf.errors.OpError)
# One letter before the colon is a drive of Windows.
_ADDRESS = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):(//?)")


@dataclasses.dataclass(frozen=True)
class Address(os.PathLike):
    """A place that `tf.io.gfile` reaches by its address, with the methods of `pathlib.Path` that
    this package needs.

    Args:
        url: The address, a string as "gs://bucket/models".
    """

    url: str

    def __fspath__(self):
        return self.url

    def __str__(self):
        return self.url

    def __truediv__(self, name):
        return Address(tf.io.gfile.join(self.url, name))

    @property
    def parent(self):
        scheme, _, place = self.url.partition("://")
        return Address(f"{scheme}://{place.rstrip('/').rpartition('/')[0]}")

    @property
    def name(self):
        return self.url.rstrip("/").rpartition("/")[2]

    def resolve(self):
        return self

    def exists(self):
        return tf.io.gfile.exists(self.url)

    def is_dir(self):
        return tf.io.gfile.isdir(self.url)

    def iterdir(self):
        # Some file systems list directories with a slash behind them.
        return (self / name.rstrip("/") for name in tf.io.gfile.listdir(self.url))

    def mkdir(self, parents=True, exist_ok=False):
        """Of two that make the same directory at the same time, not every file system tells the
        second that it is there."""
        if not exist_ok and self.exists():
            raise FileExistsError(f"{self.url} exists")
        tf.io.gfile.makedirs(self.url)

    def open(self, mode):
        # What is written to ram:// else comes behind what is there.
        if "w" in mode:
            self.unlink(missing_ok=True)
        return tf.io.gfile.GFile(self.url, mode)

    def unlink(self, missing_ok=False):
        if self.exists() or not missing_ok:
            tf.io.gfile.remove(self.url)

    def rmdir(self):
        if any(self.iterdir()):
            raise OSError(f"{self.url} is not empty")
        tf.io.gfile.rmtree(self.url)


def located(name, value):
    """The place that the argument `name` says, a `pathlib.Path` or an `Address`.

    Raises:
        TypeError: it is no path.
        ValueError: it is empty, no address that TensorFlow knows, or one that has lost a slash.
        RuntimeError: it is an address, and Keras's backend is not TensorFlow.
    """
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"`{name}` must be a path. Received: {name}={value!r}")
    text = os.fspath(value)
    if not text:
        # For pathlib that is the folder one is in.
        raise ValueError(f"`{name}` must name a place. Received: {name}={value!r}")
    address = _ADDRESS.match(text)
    if not address:
        return pathlib.Path(value)
    scheme, slashes = address.groups()
    if slashes == "/":
        raise ValueError(
            f"`{name}` must have two slashes in an address, which a pathlib.Path cannot hold: pass "
            f"a string as '{scheme}://...' (or './{scheme}:/...' for a folder of that name). "
            f"Received: {name}={value!r}"
        )
    require_tensorflow(
        f"an address, as {name}={value!r},",
        "give a path on this machine, and copy what is there afterwards",
    )
    known = [one for one in tf.io.gfile.get_registered_schemes() if one]
    if scheme not in known:
        raise ValueError(
            f"`{name}` must lie on this machine or where TensorFlow reaches "
            f"({', '.join(f'{one}://' for one in known)}); more file systems come with "
            f"`import tensorflow_io`. Received: {name}={value!r}"
        )
    return Address(text)


def path(name, value, directory=False):
    """`value`, a path or `None`; of a file, or a `directory`, that is there or can be made. What
    stands behind an address is not asked for."""
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise ValueError(f"`{name}` must be a path or None. Received: {name}={value!r}")
    place = located(name, value)
    if isinstance(place, Address):
        return value
    place = place if directory else place.parent
    for part in (place, *place.parents):
        if part.exists() and not part.is_dir():
            rule = "be a directory" if directory else "lie in a directory"
            raise ValueError(
                f"`{name}` must {rule}, but {str(part)!r} is a file. Received: {name}={value!r}"
            )
    return value


@contextlib.contextmanager
def replacing_file(path, unfinished=None):
    """Opens a file to write, in binary, that takes the place of `path` once the block has gone well
    and the disk has it all.

    Args:
        path: A `pathlib.Path` in a directory that is there, or an `Address`: then the file is
            written here, copied and renamed.
        unfinished: Where it is written, or copied to, until then: a path beside `path` that nobody
            else uses and that the caller finds again after a process was killed. Default: one that
            takes no name of the user's.
    """
    if isinstance(path, Address):
        with tempfile.TemporaryFile() as file:
            yield file
            file.seek(0)
            _copy_and_rename(file, unfinished, path)
        return
    with contextlib.ExitStack() as cleanup:
        if unfinished is None:
            # A file in it has the usual rights, which a temporary file has not.
            folder = cleanup.enter_context(tempfile.TemporaryDirectory(dir=path.parent))
            unfinished = pathlib.Path(folder, path.name)
        cleanup.callback(unfinished.unlink, missing_ok=True)
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)


@contextlib.contextmanager
def directories(path):
    """Makes the directory `path`, a `pathlib.Path`, and those above it that are missing; of these
    none is left where the block fails, but for one in which somebody else has put something."""
    missing = [one for one in (path, *path.parents) if not one.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for one in missing:
                one.rmdir()
        raise


def _copy_and_rename(file, unfinished, address):
    address.parent.mkdir(exist_ok=True)
    unfinished = unfinished or Address(f"{address.url}.{secrets.token_hex(8)}")
    try:
        with unfinished.open("wb") as copied:
            shutil.copyfileobj(file, copied)
        tf.io.gfile.rename(unfinished.url, address.url, overwrite=True)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def replacing_directory(path):
    """Gives the path of a directory to write, that takes the place of `path` once the block has
    gone well.

    Args:
        path: A `pathlib.Path`, or an `Address`: then the directory is written here, what stands
            there is removed, and the files are copied one by one, those at the top last. Whatever
            stands there is replaced, and missing directories above it are made.
    """
    if isinstance(path, Address):
        with tempfile.TemporaryDirectory() as scratch:
            new = pathlib.Path(scratch, "new")
            yield new
            _remove(path)
            _copy_directory(new, path)
        return
    with (
        directories(path.parent),
        tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch,
    ):
        new, old = pathlib.Path(scratch, "new"), pathlib.Path(scratch, "old")
        yield new
        try:
            if path.exists():
                os.rename(path, old)
            os.rename(new, path)
        except BaseException:
            if old.exists():
                os.rename(old, path)
            raise


def move(old, new):
    """Has a file, in the place of what is there, or a directory stand at another place; both are
    `pathlib.Path` or both an `Address`.

    Raises:
        One of `MISSING`: there is nothing at the old place.
    """
    if isinstance(old, Address):
        tf.io.gfile.rename(old.url, new.url, overwrite=not old.is_dir())
    else:
        os.replace(old, new)


def remove_directory(place):
    """Removes a directory with all that is in it, a `pathlib.Path` or `Address`."""
    if isinstance(place, Address):
        tf.io.gfile.rmtree(place.url)
    else:
        shutil.rmtree(place)


def _remove(address):
    if address.is_dir():
        # Where directories are but parts of names, rmtree does not find one that nobody made.
        address.mkdir(exist_ok=True)
        tf.io.gfile.rmtree(address.url)
    else:
        address.unlink(missing_ok=True)


def _copy_directory(directory, address):
    # A SavedModel is one once saved_model.pb is there, and no file system here renames directories
    # at once.
    for folder, _, names in os.walk(directory, topdown=False):
        place = address
        for part in pathlib.Path(folder).relative_to(directory).parts:
            place = place / part
        place.mkdir(exist_ok=True)
        for name in names:
            tf.io.gfile.copy(os.path.join(folder, name), (place / name).url, overwrite=True)
