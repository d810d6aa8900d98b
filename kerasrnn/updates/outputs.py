"""Where a record of norms is written while it grows."""

import csv
import io
import weakref

from kerasrnn.backends import tf

_COLUMNS = ["update", "global_norm", "clipped_norm", "clipped"]


class CSVRecord:
    """A CSV file of the norms, one row per update.

    Args:
        path: A `pathlib.Path` or `Address`; missing directories are made.

    Raises:
        FileExistsError: the path leads to a directory or a file of something else; a record of an
            earlier `fit` is replaced.
    """

    def __init__(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() or (path.exists() and not _is_record(path)):
            raise FileExistsError(
                "`csv` must name a new file or a record of an earlier fit, which it replaces. "
                f"Received: csv={str(path)!r}, which holds something else"
            )
        self._file = path.open("wb")
        # Nobody else does after a fit that was broken off.
        weakref.finalize(self, self._file.close)
        self._started = False

    def write(self, first, record):
        """Adds the updates of a `GradientRecord`, numbered from `first` on."""
        rows = io.StringIO(newline="")
        writer = csv.writer(rows)
        if not self._started:
            writer.writerow([*_COLUMNS, *record.columns])
            self._started = True
        norms = record.global_norm, record.clipped_norm, record.fired.astype(int)
        for i, row in enumerate(zip(*norms, *record.columns.values(), strict=True), first):
            writer.writerow([i, *row])
        self._file.write(rows.getvalue().encode())
        self._file.flush()

    def close(self):
        self._file.close()


class SummaryRecord:
    """TensorBoard logs of the norms, a scalar of each per update.

    Args:
        directory: That of the logs, a `pathlib.Path` or `Address`.
    """

    def __init__(self, directory):
        self._writer = tf.summary.create_file_writer(str(directory))

    def write(self, first, record):
        """Adds the updates of a `GradientRecord`, numbered from `first` on."""
        norms = {"global_norm": record.global_norm, "clipped_norm": record.clipped_norm}
        with self._writer.as_default():
            for name, of_updates in (norms | record.columns).items():
                for step, norm in enumerate(of_updates, first):
                    tf.summary.scalar(f"gradients/{name}", norm, step)
        self._writer.flush()

    def close(self):
        self._writer.close()


def _is_record(path):
    with path.open("rb") as file:
        start = file.readline()
    return not start or start.startswith(",".join(_COLUMNS).encode())
