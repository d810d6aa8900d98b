"""A line for each trial of a search."""

import time

from kerasrnn.tuning.oracles import is_healthy
from kerasrnn.tuning.reasons import reason_of


class Progress:
    """Prints how far a search is.

    Args:
        oracle: Its `KeptOracle`.

    Attributes:
        verbose: 0 for silence.
    """

    def __init__(self, oracle):
        self._oracle = oracle
        self.verbose = 1
        self._resumed = False
        self._ended, self._since = 0, None

    def goes_on(self):
        """To be called where the search has begun in another process."""
        self._resumed = True

    def begin(self):
        self._ended, self._since = 0, time.monotonic()
        if self._resumed and self.verbose:
            print(f"The search goes on after {len(self._oracle.end_order)}{self._of()} trials.")
        self._resumed = False

    def begin_trial(self):
        self._since = self._since or time.monotonic()

    def end_trial(self, trial, record, best):
        """Prints the line of a trial that has ended.

        Args:
            trial: A `keras_tuner` trial.
            record: What is known of it beside, a dictionary.
            best: The best trial so far, or `None`.
        """
        self._ended += 1
        if not self.verbose:
            return
        number = int(trial.trial_id) + 1
        name = self._oracle.objective.name
        if is_healthy(trial):
            outcome = f"{name} {trial.score:.5g}"
        else:
            reason = reason_of(record.get("message") or trial.message)
            outcome = f"no score ({reason.rstrip('.')})"
        parts = [f"{outcome}, {duration(record.get('seconds', 0))}"]
        if best is not None:
            parts.append(f"best {best.score:.5g} in trial {int(best.trial_id) + 1}")
        planned = self._oracle.planned
        if planned and number < planned:
            left = (time.monotonic() - self._since) / self._ended * (planned - number)
            parts.append(f"about {duration(left)} left")
        print(f"trial {number}{self._of()}: {'; '.join(parts)}", flush=True)

    def _of(self):
        planned = self._oracle.planned
        return f" of {planned}" if planned else ""


def duration(seconds):
    """Seconds as they are read: "8 s", "3 min 20 s", "2 h 5 min"."""
    seconds = round(seconds)
    minutes, hours = seconds // 60, seconds // 3600
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"
