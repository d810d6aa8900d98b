"""The one way to time in these benchmarks: in turns, so that whatever slows the machine down for a
while slows all that is compared."""

import statistics
import threading
import time

import keras


class Turns:
    """What each of several runs took, turn by turn.

    Args:
        seconds: (turns, runs).
    """

    def __init__(self, seconds):
        self.seconds = list(seconds)

    def ms(self, run):
        """The median of a run, in milliseconds."""
        return 1e3 * statistics.median(turn[run] for turn in self.seconds)

    def ratio(self, run, other):
        """The median over the turns of one run's time over another's."""
        return statistics.median(turn[run] / turn[other] for turn in self.seconds)


def take_turns(runs, turns):
    """Times runs in turns, after one of each that does not count: it compiles.

    Args:
        runs: Functions without arguments, which give the seconds that they took.
        turns: How often each is called.

    Returns:
        The `Turns`, with the runs in their order.
    """
    for run in runs:
        run()
    return Turns([[run() for run in runs] for _ in range(turns)])


def seconds(function, *arguments):
    """What a call takes."""
    began = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - began


class _Step(keras.callbacks.Callback):
    """Waits for its side's turn before a step; `ended`, which stands last among the callbacks,
    takes the time and passes the turn on."""

    def __init__(self, mine, other):
        super().__init__()
        self.mine, self.other = mine, other
        self.seconds = []
        self.ended = keras.callbacks.LambdaCallback(on_train_batch_end=self._end)

    def on_train_batch_begin(self, batch, logs=None):
        self.mine.acquire()
        self.began = time.perf_counter()

    def _end(self, batch, logs):
        self.seconds.append(time.perf_counter() - self.began)
        self.other.release()


def take_turns_by_step(fit, other, first):
    """Times the steps of two `fit`s in turns. A step is all from the beginning of a batch to its
    end, callbacks included.

    Each has a thread of its own: on a busy machine a step of PyTorch took up to 2.5 times as long
    in the main one as in another.

    Args:
        fit, other: Functions of two callbacks, the first and the last of those to train with.
        first: How many steps do not count: they compile.

    Returns:
        The `Turns` of both.
    """
    locks = threading.Semaphore(1), threading.Semaphore(0)
    steps = _Step(*locks), _Step(*locks[::-1])
    ends = [(step, step.ended) for step in steps]
    threads = [
        threading.Thread(target=run, args=args, daemon=True)
        for run, args in zip((fit, other), ends, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Turns(list(zip(*(step.seconds for step in steps), strict=True))[first:])
