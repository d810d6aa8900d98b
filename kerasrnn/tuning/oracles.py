"""keras-tuner's oracles, with their whole state in one file, so that none of it is ahead of the
rest when the process dies."""

import contextlib
import math

import keras_tuner
import numpy as np

from kerasrnn.tuning.asked import require_settings
from kerasrnn.tuning.folder import read_json, replace_json, write_json
from kerasrnn.tuning.workers import Signs, is_chief

# keras-tuner takes a seed of 0 for none at all; this one is as good.
_ZERO = 2**32 - 1


class KeptOracle(keras_tuner.Oracle):
    """What the four have in common. To be named before an oracle of keras-tuner.

    A trial whose objective is not finite is worse than every other, and none of the best.

    Attributes:
        asked_seed: The seed that was passed, `None` where keras-tuner draws one.
        asked_objective: Likewise, `None` where it is what `fit` returns.
        search: What tells this search from others in the same folder, a dictionary.
        signs: Of life, of the workers by their ids.
        failure: The error for which a chief hands out no more trials, or `None`.
    """

    # The arguments that make it another search.
    settings = ()

    def __init__(self, *args, seed=None, **kwargs):
        require_settings(kwargs | {"seed": seed})
        seed = seed if seed is None else int(seed)
        super().__init__(*args, seed=_ZERO if seed == 0 else seed, **kwargs)
        self.asked_seed, self.asked_objective = seed, kwargs.get("objective")
        self.search = self._file = self.failure = None
        self._holds_back = False
        self.signs = Signs()
        self.verbose = 0

    def keep_in(self, directory):
        """Says in which directory, a `pathlib.Path` or `Address`, the state goes."""
        self._file = directory / "oracle.json"

    @property
    def verbose(self):
        return super().verbose

    @verbose.setter
    def verbose(self, value):
        # The tuner prints a line for each trial where keras-tuner clears the screen.
        keras_tuner.Oracle.verbose.fset(self, 0)

    @property
    def planned(self):
        """How many trials there will be at most, or `None` where that is not known."""
        return self.max_trials

    @property
    def worst(self):
        """The score of a trial that is lost."""
        return -math.inf if self.objective.direction == "max" else math.inf

    def objective_names(self):
        """Those of the metrics that the objective is made of."""
        return list(getattr(self.objective, "name_to_direction", [self.objective.name]))

    @keras_tuner.synchronized
    def create_trial(self, tuner_id):
        self.signs.hear(tuner_id)
        if self.failure is not None:
            self.tuner_ids.discard(tuner_id)
            return keras_tuner.engine.trial.Trial(self.get_space(), status="STOPPED")
        trial = super().create_trial(tuner_id)
        if trial.status == "STOPPED" and self.ongoing_trials:
            # There is one left to take over, should its worker be lost.
            self.tuner_ids.add(tuner_id)
            trial.status = "IDLE"
        return trial

    def get_trial(self, trial_id):
        for tuner_id, trial in list(self.ongoing_trials.items()):
            if trial.trial_id == trial_id:
                self.signs.hear(tuner_id)
        return super().get_trial(trial_id)

    @keras_tuner.synchronized
    def release_lost(self):
        """Takes workers that are lost off, and puts their trials where the next worker takes
        them."""
        for tuner_id in {*self.tuner_ids, *self.ongoing_trials}:
            if self.signs.is_lost(tuner_id):
                self.tuner_ids.discard(tuner_id)
                trial = self.ongoing_trials.pop(tuner_id, None)
                if trial is not None:
                    print(
                        f"Worker {tuner_id} was not heard of for {self.signs.timeout:g} seconds: "
                        f"trial {int(trial.trial_id) + 1} goes to another."
                    )
                    self._retry_queue.append(trial.trial_id)
                    self.save()

    @keras_tuner.synchronized
    def update_trial(self, trial_id, metrics, step=0):
        if trial_id in self.end_order:
            # Another worker, to which it went, has ended it.
            return self.trials[trial_id]
        names = {*self.objective_names(), self.objective.name} & metrics.keys()
        wrong = [name for name in names if not math.isfinite(metrics[name])]
        if wrong:
            trial = self.trials[trial_id]
            trial.message = trial.message or f"{wrong[0]} was {metrics[wrong[0]]}"
            metrics = {**metrics, **{name: self._worst_of(name) for name in names}}
        return super().update_trial(trial_id, metrics, step)

    def _worst_of(self, name):
        directions = getattr(self.objective, "name_to_direction", {})
        direction = directions.get(name, self.objective.direction)
        return -math.inf if direction == "max" else math.inf

    @keras_tuner.synchronized
    def end_trial(self, trial):
        if trial.trial_id in self.end_order:
            return
        # keras-tuner saves before the trial is taken off those that run; a process that died then
        # would run it again.
        try:
            with self._saved_at_the_end():
                super().end_trial(trial)
                # One that was taken for lost may have ended it before another took it up.
                if self.trials[trial.trial_id].status in ("COMPLETED", "FAILED"):
                    self._retry_queue = [one for one in self._retry_queue if one != trial.trial_id]
        except RuntimeError as error:
            if not is_chief():
                raise
            # A worker would be told that something has failed, and the chief would wait for ever.
            self.failure = error
            ongoing = self.ongoing_trials.items()
            self.ongoing_trials = {
                tuner_id: one for tuner_id, one in ongoing if one.trial_id != trial.trial_id
            }

    @contextlib.contextmanager
    def _saved_at_the_end(self):
        self._holds_back = True
        try:
            yield
        finally:
            self._holds_back = False
        self.save()

    def get_best_trials(self, num_trials=1):
        ranked = super().get_best_trials(len(self.trials))
        return [one for one in ranked if is_healthy(one)][:num_trials]

    def get_state(self):
        trials = [trial.get_state() for trial in self.trials.values()]
        return super().get_state() | {"search": self.search, "trials": trials}

    def set_state(self, state):
        trials = map(keras_tuner.engine.trial.Trial.from_state, state["trials"])
        self.trials = {trial.trial_id: trial for trial in trials}
        super().set_state(state)

    def kept_state(self):
        """What is on disk, or `None`."""
        return read_json(self._file)

    def save(self):
        if not self._holds_back:
            write_json(self._file, self.get_state())

    def reload(self):
        """Takes up what is on disk. A trial that ran comes next; a chief leaves it to its worker,
        who may run it still."""
        self.set_state(self.kept_state())
        if not is_chief():
            # test_seams.py: test_a_retried_trial_comes_next
            self._retry_queue += [trial.trial_id for trial in self.ongoing_trials.values()]
            self.ongoing_trials = {}

    def _save_trial(self, trial):
        """For people who look into the folder, and never read back.

        test_seams.py: test_trials_are_saved_by_save_trial.
        """
        folder = self._file.parent / f"trial_{trial.trial_id}"
        replace_json(folder / "trial.json", trial.get_state())


def is_healthy(trial):
    """Whether a trial has come to a score that counts."""
    return trial.status == "COMPLETED" and math.isfinite(trial.score)


class RandomSearchOracle(KeptOracle, keras_tuner.oracles.RandomSearchOracle):
    """That of `RandomSearch`."""


class BayesianOptimizationOracle(KeptOracle, keras_tuner.oracles.BayesianOptimizationOracle):
    """That of `BayesianOptimization`."""

    settings = ("num_initial_points", "alpha", "beta")

    def populate_space(self, trial_id):
        # The Gaussian process would take an infinite score for 0; it learns to keep clear of the
        # place from the worst that is known.
        ended = [trial for trial in self.trials.values() if trial.status == "COMPLETED"]
        scores = [trial.score for trial in ended]
        healthy = [score for score in scores if math.isfinite(score)] or [0.0]
        worst = min(healthy) if self.worst < 0 else max(healthy)
        for trial in ended:
            trial.score = trial.score if math.isfinite(trial.score) else worst
        try:
            return super().populate_space(trial_id)
        finally:
            for trial, score in zip(ended, scores, strict=True):
                trial.score = score

    # test_seams.py: test_the_random_state_of_bayesian_optimization
    def get_state(self):
        name, keys, *rest = self._random_state.get_state()
        return super().get_state() | {"random_state": [name, keys.tolist(), *rest]}

    def set_state(self, state):
        super().set_state(state)
        name, keys, *rest = state["random_state"]
        self._random_state.set_state((name, np.array(keys, "uint32"), *rest))


class HyperbandOracle(KeptOracle, keras_tuner.oracles.HyperbandOracle):
    """That of `Hyperband`."""

    settings = ("max_epochs", "factor", "hyperband_iterations")

    @property
    def planned(self):
        # test_seams.py: test_the_sizes_of_hyperband
        sizes = (
            self._get_size(bracket, number)
            for bracket in range(self._get_num_brackets())
            for number in range(self._get_num_rounds(bracket))
        )
        planned = sum(sizes) * self.hyperband_iterations
        return planned if math.isfinite(planned) else None


class GridSearchOracle(KeptOracle, keras_tuner.oracles.GridSearchOracle):
    """That of `GridSearch`."""

    @property
    def planned(self):
        space = self.get_space().space
        if any(hp.conditions for hp in space):
            return self.max_trials
        return min(self.max_trials or math.inf, math.prod(len(_values(hp)) for hp in space))

    # test_seams.py: test_the_order_of_a_grid_search
    def get_state(self):
        ordered, following = [], self._ordered_ids
        if self.start_order:
            ordered.append(self.start_order[0])
            while (after := following.next(ordered[-1])) is not None:
                ordered.append(after)
        return super().get_state() | {"ordered": ordered, "next": self._populate_next}

    def set_state(self, state):
        super().set_state(state)
        self._ordered_ids = type(self._ordered_ids)()
        for trial_id in state["ordered"]:
            self._ordered_ids.insert(trial_id)
        self._populate_next = state["next"]


def _values(hp):
    values = list(hp.values)
    return values if hp.default in values else [hp.default, *values]
