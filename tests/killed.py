"""What a process leaves on disk that is killed between any two of its operations on files."""

import contextlib
import hashlib
import shutil
import sys

import h5py
import tensorflow as tf

_CHANGES = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"}
# An audit hook stays for good; it looks for one folder at a time.
_watched = []


def _audited(event, arguments):
    if not _watched or event not in _CHANGES:
        return
    reads = event == "open" and not set(str(arguments[1])) & set("wax+")
    if not reads and str(arguments[0]).startswith(str(_watched[0].folder)):
        _watched[0].look()


class Moments:
    """Copies of a folder, one for each moment at which something in it is about to change.

    Each is what SIGKILL would leave there: nothing that Python's buffers hold. A file of weights
    is copied in the midst of its writing, too.

    Args:
        folder: The folder.
        copies: Where its copies go.

    Attributes:
        copied: Their paths in order. Of moments between which nothing changed there is one.
    """

    def __init__(self, folder, copies):
        self.folder, self._copies = folder, copies
        self.copied, self._last = [], None

    def look(self):
        content = hashlib.sha256()
        for path in sorted(self.folder.rglob("*")):
            content.update(str(path).encode() + (path.read_bytes() if path.is_file() else b""))
        if content.digest() == self._last:
            return
        self._last = content.digest()
        copy = self._copies / str(len(self.copied))
        shutil.copytree(self.folder, copy)
        self.copied.append(copy)

    @contextlib.contextmanager
    def watched(self, monkeypatch):
        with monkeypatch.context() as patch:
            # What C++ and HDF5 do, Python's audit is not told of.
            for owner, name in ((tf.io.gfile, "rename"), (h5py.Group, "create_dataset")):
                patch.setattr(owner, name, self._looking(getattr(owner, name)))
            _watched.append(self)
            try:
                yield self
            finally:
                _watched.remove(self)

    def _looking(self, act):
        def looked(*args, **kwargs):
            self.look()
            done = act(*args, **kwargs)
            self.look()
            return done

        return looked


sys.addaudithook(_audited)
