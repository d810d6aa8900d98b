"""The trials of a search as a table."""

import math

from kerasrnn.tuning.oracles import is_healthy

# Those of keras-tuner's own, as Hyperband sets them.
_INTERNAL = "tuner/"


class TrialsTable(list):
    """A dictionary for each trial, ranked; printed, a table in Markdown.

    Args:
        trials: Pairs of a trial of `keras_tuner` and what is known of it beside, a dictionary.
        highest_first: Whether a higher score is a better one.

    Attributes:
        hyperparameters: Their names.
    """

    def __init__(self, trials, highest_first):
        self.hyperparameters = list(
            dict.fromkeys(
                name
                for trial, _ in trials
                for name in trial.hyperparameters.values
                if not name.startswith(_INTERNAL)
            )
        )
        sign = -1 if highest_first else 1
        ranked = sorted(trials, key=lambda pair: _rank(pair[0], sign))
        super().__init__(self._row(trial, record) for trial, record in ranked)

    def _row(self, trial, record):
        values = trial.hyperparameters.values
        return {
            "trial": int(trial.trial_id) + 1,
            "hyperparameters": {
                name: values[name] for name in self.hyperparameters if name in values
            },
            "score": trial.score if is_healthy(trial) else None,
            "epochs": record.get("epochs"),
            "parameters": record.get("parameters"),
            "seconds": record.get("seconds"),
            "verdict": _verdict(trial, record),
        }

    def ended(self):
        """The rows of trials that do not run any more."""
        return [row for row in self if row["verdict"] != "RUNNING"]

    def __str__(self):
        if not self:
            return "no trials"
        lines = [["trial", *self.hyperparameters, *list(self[0])[2:]]]
        lines.append(["---"] * len(lines[0]))
        for row in self:
            number, values, *others = row.values()
            cells = [number, *map(values.get, self.hyperparameters), *others]
            lines.append(list(map(_written, cells)))
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _rank(trial, sign):
    if is_healthy(trial):
        return 0, sign * trial.score
    order = ["COMPLETED", "FAILED"]
    return order.index(trial.status) + 1 if trial.status in order else 3, 0.0


def _verdict(trial, record):
    if trial.status == "COMPLETED":
        lost = not math.isfinite(trial.score)
        return record.get("verdict") or ("NON-FINITE" if lost else "")
    return "FAILED" if trial.status == "FAILED" else "RUNNING"


def _written(value):
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")
