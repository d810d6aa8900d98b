"""Files and directories that are replaced at once or not at all: whoever looks finds the old
content whole or the new one."""

import contextlib
import os
import pathlib
import tempfile


@contextlib.contextmanager
def replacing_file(path, unfinished=None):
    """Opens a file to write, in binary, that takes the place of `path` once the block has gone well
    and the disk has it all.

    Args:
        path: A `pathlib.Path` in a directory that is there.
        unfinished: Where it is written until then: a path beside `path` that nobody else uses and
            that the caller finds again after a process was killed. Default: in a folder of its own
            beside `path`, which takes no name of the user's.
    """
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
def replacing_directory(path):
    """Gives the path of a directory to write, that takes the place of `path` once the block has
    gone well.

    Args:
        path: A `pathlib.Path`; whatever stands there is replaced, and missing directories above it
            are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
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
