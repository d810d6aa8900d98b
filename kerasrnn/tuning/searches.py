"""keras-tuner's four tuners, as searches that survive."""

import keras_tuner

from kerasrnn.tuning import oracles
from kerasrnn.tuning.search import Search

_COMMON = """
    Killed at any moment and begun again by the same script, the search goes on: at most the epoch
    that ran is lost, no trial runs twice to its end, and with a `seed` the outcome is that of a
    search that nothing disturbed, where the data are arrays or come in a fixed order. A trial goes
    on from its last epoch with its weights, its optimizer, the numbers that its random layers would
    have drawn, and what its callbacks know. After
    Ctrl-C `search` goes on in the same way. Each trial has random numbers of its own, which come
    from `seed` and the trial's number.

    A trial whose objective or whose weights are not finite is stopped, ranks behind all others and
    does not end the search. A `GradientNormMonitor` among the callbacks of `search` leaves its CSV
    and its verdict in the folder of each trial. `search` prints a line for each trial.

    With the environment variables of keras-tuner's chief and workers it runs in several processes,
    which share `directory`. `worker_timeout`, 60 seconds, is how long the chief waits for a sign of
    a worker, which gives one each second, before another takes over its trial; `chief_timeout`, as
    many, how long a worker waits for a chief.

    A trial that runs is kept in a pickle: go on with the searches of people you trust alone.
"""
_FIRST = """
        hypermodel: A `keras_tuner.HyperModel`, as `RNNHyperModel`, or a function that builds and
            compiles a model from `keras_tuner.HyperParameters`.
        objective: The name of a metric as it is in the logs, as "val_loss", a
            `keras_tuner.Objective`, which says its direction, too, a `HealthyObjective`, or a list
            of these.
"""
_LAST = """
        seed: An integer; `None` draws one.
        hyperparameters, tune_new_entries, allow_new_entries: A space to begin with, and whether
            what `hypermodel` asks for beside it is searched, and allowed.
        max_retries_per_trial, max_consecutive_failed_trials: How often a trial that ended in an
            error is tried again, and how many such trials in a row end the search.
        **kwargs: As in `keras_tuner.Tuner`, `directory` and `project_name`, `executions_per_trial`,
            `max_model_size` and `overwrite` among them. What `overwrite=True` replaces is put
            aside when `search` begins, beside the folder under its name and `.replaced`, and goes
            when the first trial has gone well; it comes back where none does.
"""
_RAISES = """
    Raises:
        ValueError: an argument is out of its range; `overwrite` is false and the folder holds
            another search, of another space, objective, seed or tuner, or a file of it that is
            damaged, as is its backup; in `search`, where the objective is of validation data and
            there are none.
        ConnectionError: a worker has no chief.
        OSError: `directory` cannot be made or written.
        TypeError: in `search`, for an argument that `fit` does not take, or what is no callback.
        FileNotFoundError: in `get_best_models`, where a trial's file is gone or damaged.
        FileExistsError: in `search`, where `overwrite` would remove what is no search.
        RuntimeError: at the end of `search`, where no trial has come to a finite score.
"""


def _described(cls):
    parts = {"common": _COMMON, "first": _FIRST, "last": _LAST, "raises": _RAISES}
    cls.__doc__ = cls.__doc__.format(**{name: part.strip() for name, part in parts.items()})
    return cls


@_described
class RandomSearch(keras_tuner.RandomSearch, Search):
    """Tries hyperparameters at random.

    {common}

    Args:
        {first}
        max_trials: The most trials there will be; more of them extend a search that has ended.
        {last}

    {raises}

    Source: Bergstra & Bengio (2012), Random search for hyper-parameter optimization.

    Example:

    >>> hypermodel = kerasrnn.tuning.RNNHyperModel("regression", features=3, units=4, depths=1)
    >>> search = kerasrnn.tuning.RandomSearch(
    ...     hypermodel, "loss", max_trials=1, directory="search", overwrite=True
    ... )
    >>> search.search(np.ones((8, 5, 3)), np.ones((8, 1)), verbose=0)
    >>> len(search.trials_table())
    1
    """

    def __init__(
        self,
        hypermodel=None,
        objective=None,
        max_trials=10,
        seed=None,
        hyperparameters=None,
        tune_new_entries=True,
        allow_new_entries=True,
        max_retries_per_trial=0,
        max_consecutive_failed_trials=3,
        **kwargs,
    ):
        oracle = oracles.RandomSearchOracle(
            objective=objective,
            max_trials=max_trials,
            seed=seed,
            hyperparameters=hyperparameters,
            tune_new_entries=tune_new_entries,
            allow_new_entries=allow_new_entries,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
        )
        Search.__init__(self, oracle, hypermodel, **kwargs)


@_described
class BayesianOptimization(keras_tuner.BayesianOptimization, Search):
    """Tries hyperparameters where a Gaussian process of the scores so far hopes for better ones.

    {common}

    Args:
        {first}
        max_trials: The most trials there will be; more of them extend a search that has ended.
        num_initial_points: Trials at random before that; three for each hyperparameter if `None`.
        alpha: The noise expected in the scores, added to the diagonal of the kernel matrix.
        beta: How much an uncertain place counts against a good one.
        {last}

    {raises}

    Source: Snoek, Larochelle & Adams (2012), Practical Bayesian optimization of machine learning
    algorithms.

    Example:

    >>> hypermodel = kerasrnn.tuning.RNNHyperModel("regression", features=3, units=4, depths=1)
    >>> search = kerasrnn.tuning.BayesianOptimization(
    ...     hypermodel, "loss", max_trials=1, directory="search", overwrite=True
    ... )
    >>> search.search(np.ones((8, 5, 3)), np.ones((8, 1)), verbose=0)
    >>> len(search.trials_table())
    1
    """

    def __init__(
        self,
        hypermodel=None,
        objective=None,
        max_trials=10,
        num_initial_points=None,
        alpha=1e-4,
        beta=2.6,
        seed=None,
        hyperparameters=None,
        tune_new_entries=True,
        allow_new_entries=True,
        max_retries_per_trial=0,
        max_consecutive_failed_trials=3,
        **kwargs,
    ):
        oracle = oracles.BayesianOptimizationOracle(
            objective=objective,
            max_trials=max_trials,
            num_initial_points=num_initial_points,
            alpha=alpha,
            beta=beta,
            seed=seed,
            hyperparameters=hyperparameters,
            tune_new_entries=tune_new_entries,
            allow_new_entries=allow_new_entries,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
        )
        Search.__init__(self, oracle, hypermodel, **kwargs)


@_described
class Hyperband(keras_tuner.Hyperband, Search):
    """Trains many trials for a few epochs, and the better ones on from there.

    {common}

    A trial that is promoted goes on from where the other ended, with its weights and the state of
    its optimizer; the folder keeps these of every trial.

    Args:
        {first}
        max_epochs: The most epochs that a trial is trained.
        factor: How many times fewer trials, of as many times more epochs, each round has.
        hyperband_iterations: How often the whole is gone through.
        {last}

    {raises}

    Source: Li, Jamieson, DeSalvo, Rostamizadeh & Talwalkar (2018), Hyperband.

    Example:

    >>> hypermodel = kerasrnn.tuning.RNNHyperModel("regression", features=3, units=4, depths=1)
    >>> search = kerasrnn.tuning.Hyperband(
    ...     hypermodel, "loss", max_epochs=1, directory="search", overwrite=True
    ... )
    >>> search.search(np.ones((8, 5, 3)), np.ones((8, 1)), verbose=0)
    >>> len(search.trials_table())
    1
    """

    promotes = sets_epochs = True

    def __init__(
        self,
        hypermodel=None,
        objective=None,
        max_epochs=100,
        factor=3,
        hyperband_iterations=1,
        seed=None,
        hyperparameters=None,
        tune_new_entries=True,
        allow_new_entries=True,
        max_retries_per_trial=0,
        max_consecutive_failed_trials=3,
        **kwargs,
    ):
        oracle = oracles.HyperbandOracle(
            objective=objective,
            max_epochs=max_epochs,
            factor=factor,
            hyperband_iterations=hyperband_iterations,
            seed=seed,
            hyperparameters=hyperparameters,
            tune_new_entries=tune_new_entries,
            allow_new_entries=allow_new_entries,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
        )
        Search.__init__(self, oracle, hypermodel, **kwargs)

    def _build_hypermodel(self, hp):
        # The weights of the other trial come with its optimizer's state, when the training begins.
        return Search._build_hypermodel(self, hp)

    def _promoted_state(self, trial, execution):
        promoted = trial.hyperparameters.values.get("tuner/trial_id")
        if promoted is None:
            return None
        state = self._state_file(promoted, execution).read()
        if state is None:
            raise keras_tuner.errors.FatalRuntimeError(
                f"Trial {trial.trial_id} goes on from trial {promoted}, whose state is not in "
                f"{self.get_trial_dir(promoted)} any more."
            )
        return state


@_described
class GridSearch(keras_tuner.GridSearch, Search):
    """Tries all combinations of hyperparameters.

    {common}

    Args:
        {first}
        max_trials: The most trials there will be; more of them extend a search that has ended.
        {last}

    {raises}

    Source: keras_tuner.GridSearch.

    Example:

    >>> hypermodel = kerasrnn.tuning.RNNHyperModel("regression", features=3, units=4, depths=1)
    >>> search = kerasrnn.tuning.GridSearch(
    ...     hypermodel, "loss", max_trials=1, directory="search", overwrite=True
    ... )
    >>> search.search(np.ones((8, 5, 3)), np.ones((8, 1)), verbose=0)
    >>> len(search.trials_table())
    1
    """

    def __init__(
        self,
        hypermodel=None,
        objective=None,
        max_trials=None,
        seed=None,
        hyperparameters=None,
        tune_new_entries=True,
        allow_new_entries=True,
        max_retries_per_trial=0,
        max_consecutive_failed_trials=3,
        **kwargs,
    ):
        oracle = oracles.GridSearchOracle(
            objective=objective,
            max_trials=max_trials,
            seed=seed,
            hyperparameters=hyperparameters,
            tune_new_entries=tune_new_entries,
            allow_new_entries=allow_new_entries,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
        )
        Search.__init__(self, oracle, hypermodel, **kwargs)
