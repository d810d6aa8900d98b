"""Trainings that take long: each that has ended is a line of a file, with all that determined it,
and what stands there is not run again."""

import concurrent.futures
import json
import multiprocessing
import sys
import time


def key(run):
    """A run, a dict of plain values, as the text by which it is known."""
    return json.dumps(run, sort_keys=True)


def finished(path):
    """What the file has, by the key of its run."""
    if not path.exists():
        return {}
    lines = path.read_text().splitlines(keepends=True)
    # A process that was killed while it wrote leaves a line without its end.
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    return {key(row["run"]): row["found"] for row in rows}


def run_all(path, runs, train, processes=None, runs_per_process=12):
    """Runs what the file does not have yet, and says on the way what has ended.

    Args:
        path: The file, a `pathlib.Path`.
        runs: A list of dicts of plain values.
        train: `train(run)` gives what was found, a dict of plain values.
        processes: In how many processes at once, each with one thread of TensorFlow; `train` is a
            function of a module then. By default in this one.
        runs_per_process: After so many a fresh one takes its place, for a process keeps the
            programs of what it has trained.

    Returns:
        What was found, in the order of the runs.
    """
    done = finished(path)
    missing = {key(run): run for run in runs if key(run) not in done}
    path.parent.mkdir(exist_ok=True)
    _cut_unfinished_line(path)
    began = time.time()
    trained = _trained(missing.values(), train, processes, runs_per_process)
    for number, (run, found) in enumerate(trained, 1):
        done[key(run)] = found
        with path.open("a") as file:
            file.write(json.dumps({"run": run, "found": found}) + "\n")
        left = (time.time() - began) / number * (len(missing) - number)
        told = " ".join(f"{name}={value}" for name, value in run.items())
        said = f"{number}/{len(missing)}, {left / 60:.0f} min left: {told}"
        print(said, file=sys.stderr, flush=True)
    return [done[key(run)] for run in runs]


def _cut_unfinished_line(path):
    if path.exists():
        with path.open("r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)


def _trained(runs, train, processes, runs_per_process):
    if processes is None:
        yield from ((run, train(run)) for run in runs)
        return
    runs, together = list(runs), processes * runs_per_process
    for first in range(0, len(runs), together):
        # Not `max_tasks_per_child`, with which a pool of CPython 3.11 waits for ever (gh-115634).
        pool = concurrent.futures.ProcessPoolExecutor(
            processes, multiprocessing.get_context("spawn"), one_thread
        )
        # Not `with`, whose end would wait for all that had not begun.
        try:
            waiting = {pool.submit(train, run): run for run in runs[first : first + together]}
            for one in concurrent.futures.as_completed(waiting):
                yield waiting[one], one.result()
        finally:
            pool.shutdown(cancel_futures=True)


def one_thread():
    """Has this process run TensorFlow's operations on one thread, for several side by side."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
