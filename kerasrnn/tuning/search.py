"""A tuner of keras-tuner whose search goes on where its process died."""

import contextlib
import inspect
import json
import warnings
import zlib

import keras
import keras_tuner
from keras_tuner.engine.tuner import maybe_distribute

from kerasrnn.arguments import boolean, one_of, positive_integer
from kerasrnn.callbacks import GradientNormMonitor
from kerasrnn.diagnostics import plots
from kerasrnn.diagnostics.health.verdict import gravest
from kerasrnn.files import UNREADABLE, located
from kerasrnn.tuning.asked import (
    list_of_callbacks,
    named_arguments,
    require_folder,
    require_hypermodel,
)
from kerasrnn.tuning.folder import (
    Replaced,
    StateFile,
    WholeWeights,
    read_json,
    unfinished,
    write_json,
)
from kerasrnn.tuning.healthy import HealthWatch, first_batch, healthy_part
from kerasrnn.tuning.hypermodel import RNNHyperModel
from kerasrnn.tuning.keeping import EpochKeeper, NotHandedOn, TrialLost, require_objective, seed_of
from kerasrnn.tuning.memory import TrialMemory
from kerasrnn.tuning.progress import Progress
from kerasrnn.tuning.reasons import reason_of
from kerasrnn.tuning.table import TrialsTable
from kerasrnn.tuning.workers import ChiefClient, NoChief, is_chief, pause, regularly


class Search(keras_tuner.Tuner):
    """What `RandomSearch`, `BayesianOptimization`, `Hyperband` and `GridSearch` have in common. To
    be named behind a tuner of keras-tuner, whose arguments `Tuner` takes are these.

    Args:
        oracle: A `KeptOracle`.
        hypermodel, directory, project_name and further ones: As in `keras_tuner.Tuner`.
        overwrite: Whether a search that is in the folder is replaced, when `search` begins, or gone
            on with.
    """

    # Whether trials go on from others that have ended, and whether it says for how many epochs.
    promotes = sets_epochs = False

    def __init__(
        self,
        oracle,
        hypermodel=None,
        overwrite=False,
        worker_timeout=60.0,
        chief_timeout=60.0,
        **kwargs,
    ):
        if hypermodel is None and type(self).run_trial in (Search.run_trial, *_THEIRS):
            raise ValueError(
                "`hypermodel` must be a HyperModel or a function that builds a model, unless a "
                "subclass has a `run_trial` of its own. Received: hypermodel=None"
            )
        require_hypermodel(hypermodel)
        self._replaces = boolean("overwrite", overwrite)
        for name, seconds in (("worker_timeout", worker_timeout), ("chief_timeout", chief_timeout)):
            if not seconds > 0:
                raise ValueError(f"`{name}` must be above 0 seconds. Received: {name}={seconds!r}")
        oracle.signs.timeout = worker_timeout
        # On a worker `oracle` becomes a proxy of the chief's, which does not know all of this.
        self._kept_oracle = oracle
        self._progress = Progress(oracle)
        # keras-tuner sets its own after it has begun with the space.
        self._executions = positive_integer(
            "executions_per_trial", kwargs.get("executions_per_trial", 1)
        )
        require_folder(kwargs.get("directory"), kwargs.get("project_name"))
        super().__init__(oracle, hypermodel, **kwargs)
        if self._fits_plainly and oracle.asked_objective is None:
            raise ValueError(
                "`objective` must be the name of a metric, a keras_tuner.Objective or a "
                "HealthyObjective. Received: objective=None"
            )
        self._began = True
        if self._is_worker():
            self.oracle = ChiefClient(self.oracle, chief_timeout)
            self.oracle.require_chief()

    @property
    def _place(self):
        return located("directory", self.project_dir)

    def _populate_initial_space(self):
        """Takes up the search that is in the folder, once it is clear that it is this one.

        test_seams.py: test_a_tuner_begins_with_its_space.
        """
        super()._populate_initial_space()
        oracle = self._kept_oracle
        oracle.keep_in(self._place)
        oracle.search = json.loads(json.dumps(self._identity()))
        if self._replaces or self._is_worker():
            return
        state = oracle.kept_state()
        if state is not None:
            self._require_this_search(state.get("search") if isinstance(state, dict) else None)
            oracle.reload()
            self._progress.goes_on()

    def _identity(self):
        oracle = self._kept_oracle
        return {
            "tuner": type(self).__name__,
            "objective": str(oracle.objective),
            "seed": oracle.asked_seed,
            "space": oracle.get_space().get_config()["space"],
            "executions_per_trial": self._executions,
            **{name: getattr(oracle, name) for name in oracle.settings},
        }

    def _require_this_search(self, there):
        here = self._kept_oracle.search
        if there is None:
            difference = "it is none of kerasrnn.tuning"
        else:
            if here["seed"] is None:
                here["seed"] = there["seed"]
            names = [name for name in here if here[name] != there.get(name)]
            if not names:
                return
            difference = "; ".join(_difference(name, there.get(name), here[name]) for name in names)
        raise ValueError(
            "`overwrite=False` goes on with the search that is in the folder, but that is another "
            f"one: {difference}. Pass another `project_name`, or `overwrite=True` to replace it. "
            f"Received: directory={self.directory!r}, project_name={self.project_name!r}"
        )

    def save(self):
        if not self._is_worker():
            self.oracle.save()

    def reload(self):
        """Takes up what is in the folder. (keras-tuner calls it where it has left a file there.)"""
        self._populate_initial_space()

    def search(self, *fit_args, **fit_kwargs):
        """Searches, or goes on with a search.

        Args:
            *fit_args: Those of `fit`.
            **fit_kwargs: Those of `fit`. Callbacks are copied for every training. `verbose` is 0
                for silence, 1 (or "auto") for a line for each trial, 2 for one for each epoch, too.

        Raises:
            RuntimeError: no trial has come to a finite score, or too many in a row have failed.
            keras_tuner.errors.FatalValueError: no metric gives the objective.
        """
        verbose = one_of((0, 1, 2, "auto"), "verbose", fit_kwargs.get("verbose", "auto"))
        self._progress.verbose = 1 if verbose == "auto" else verbose
        if self._fits_plainly:
            fit_args, fit_kwargs = (), named_arguments(fit_args, fit_kwargs)
            self._require_validation(fit_kwargs)
        if "callbacks" in fit_kwargs:
            fit_kwargs["callbacks"] = list_of_callbacks(fit_kwargs["callbacks"])
        if self.sets_epochs and {"epochs", "initial_epoch"} & fit_kwargs.keys():
            warnings.warn(
                f"{type(self).__name__} sets `epochs` and `initial_epoch` itself, by `max_epochs`; "
                "those of search() do not count.",
                stacklevel=2,
            )
        if self._replaces and not self._is_worker():
            self._require_a_search_to_replace()
            self._replaced.put_aside()
        self._replaces = False
        with self._looking_after_workers(), self._putting_back():
            super().search(*fit_args, **fit_kwargs)
            if self._kept_oracle.failure is not None:
                raise RuntimeError(
                    f"{str(self._kept_oracle.failure).strip()} {self._reasons()}. Each trial's "
                    f"record.json has more, in {self._place}."
                )
            # A worker's chief may be gone by now.
            if not self._is_worker():
                self._require_a_winner()

    def _looking_after_workers(self):
        if is_chief():
            return regularly(self._look_after_workers)
        return contextlib.nullcontext()

    def _look_after_workers(self):
        self._kept_oracle.release_lost()
        self._settle()

    @contextlib.contextmanager
    def _putting_back(self):
        """Has what the search was to replace back where it fails before a trial has gone well."""
        try:
            yield
        except Exception as error:
            if not (self._is_worker() or self._has_a_trial()) and self._replaced.put_back():
                error.add_note(f"What was to be replaced is in {self._place} as it was.")
            raise

    @property
    def _replaced(self):
        return Replaced(self._place)

    def _has_a_trial(self):
        trials = list(self._kept_oracle.trials.values())
        return any(trial.status == "COMPLETED" for trial in trials)

    def _settle(self):
        if not self._is_worker() and self._has_a_trial():
            self._replaced.remove()

    def pre_create_trial(self):
        if not self._began:
            # There is none now; the trial of another may become one.
            pause()
        self._began = False

    def _require_validation(self, kwargs):
        validates = kwargs.get("validation_split") or kwargs.get("validation_data") is not None
        for name in self._kept_oracle.objective_names():
            if name.startswith("val_") and not validates:
                raise ValueError(
                    "`objective` on validation data needs `validation_data` or "
                    f"`validation_split` in search(). Received: objective={name!r}"
                )

    @property
    def _fits_plainly(self):
        """Whether `fit` is called with what `search` is called with."""
        fit = getattr(type(self.hypermodel), "fit", None)
        tried = type(self).run_trial in (Search.run_trial, *_THEIRS)
        return tried and fit in (keras_tuner.HyperModel.fit, RNNHyperModel.fit)

    def _fit_takes(self, name):
        parameters = inspect.signature(self.hypermodel.fit).parameters.values()
        return any(one.name == name or one.kind is one.VAR_KEYWORD for one in parameters)

    def _require_a_search_to_replace(self):
        names = [place.name for place in self._place.iterdir()]
        searched = any(name.startswith(("oracle.json", "trial_", "tuner")) for name in names)
        if names and not searched:
            raise FileExistsError(
                "`overwrite=True` replaces a search, and the folder holds something else: "
                f"{', '.join(sorted(names)[:3])}. Received: directory={self.directory!r}, "
                f"project_name={self.project_name!r}"
            )

    def on_search_begin(self):
        self._progress.begin()
        self._memory = TrialMemory()

    def on_trial_begin(self, trial):
        self._began = True
        self._progress.begin_trial()

    def on_trial_end(self, trial):
        # A chief is not told the message.
        record = self._record(trial) | {"message": trial.message}
        write_json(self._record_path(trial.trial_id), record)
        super().on_trial_end(trial)
        ended = self.oracle.get_trial(trial.trial_id)
        if not self.promotes and ended.status in ("COMPLETED", "FAILED"):
            for execution in range(self.executions_per_trial):
                self._state_file(trial.trial_id, execution).remove()
        self._memory.release()
        self._settle()
        best = self.oracle.get_best_trials(1)
        self._progress.end_trial(ended, self._record(ended), best[0] if best else None)

    def run_trial(self, trial, *args, **kwargs):
        self._record_so_far = {"epochs": 0, "seconds": 0.0, "parameters": None}
        self._execution = 0
        self._verdicts, self._given_up = [], None
        try:
            with self._giving_signs_of(trial):
                return super().run_trial(trial, *args, **kwargs)
        except TrialLost as lost:
            trial.message = str(lost)
            nothing = dict.fromkeys(self._kept_oracle.objective_names(), float("nan"))
            return nothing | {self._kept_oracle.objective.name: float("nan")}
        finally:
            graver = gravest(self._verdicts).words if self._verdicts else None
            verdict = self._given_up or graver
            record = self._record_so_far | {"verdict": verdict}
            write_json(self._record_path(trial.trial_id), record)

    def _giving_signs_of(self, trial):
        if self._is_worker():
            return regularly(lambda: self._give_sign_of(trial))
        return contextlib.nullcontext()

    def _give_sign_of(self, trial):
        # Where there is no chief now, there may be one when the trial ends.
        with contextlib.suppress(NoChief):
            self.oracle.get_trial(trial.trial_id)

    def _build_and_fit_model(self, trial, *args, **kwargs):
        """One execution. test_seams.py: test_an_execution_is_built_and_fitted_in_one_place."""
        try:
            return self._fit_once(trial, *args, **kwargs)
        except NotHandedOn:
            warnings.warn(
                "HyperModel.fit must hand `initial_epoch` on to model.fit for a trial to go on "
                f"where it was broken off: trial {trial.trial_id} begins anew.",
                stacklevel=2,
            )
            self._state_file(trial.trial_id, self._execution).remove()
            return self._fit_once(trial, *args, **kwargs)
        finally:
            self._execution += 1

    def _fit_once(self, trial, *args, callbacks=(), **kwargs):
        folder, execution = self._trial_place(trial.trial_id), self._execution
        monitors = [one for one in callbacks if isinstance(one, GradientNormMonitor)]
        watch = None
        if healthy := healthy_part(self._kept_oracle.objective):
            if not monitors:
                monitors = [GradientNormMonitor()]
                callbacks = [*monitors, *callbacks]
            batch = first_batch(args, kwargs, healthy.samples) if self._fits_plainly else None
            watch = HealthWatch(healthy, monitors[0], batch, lambda why: keeper.give_up(why))
            callbacks = [*callbacks, watch]
        weights = located("directory", self._get_checkpoint_fname(trial.trial_id))
        # keras-tuner's, which all executions share. test_seams.py:
        # test_an_execution_is_built_and_fitted_in_one_place.
        for callback in callbacks:
            if getattr(callback, "filepath", None) == str(weights):
                callback.filepath = str(unfinished(weights))
        callbacks = [*callbacks, WholeWeights(weights)]
        for number, monitor in enumerate(monitors):
            suffix = f"-{execution}-{number}" if execution or number else ""
            monitor.keep_in(folder, suffix)
        seed = [self._kept_oracle.seed, zlib.crc32(trial.trial_id.encode()), execution]
        keeper = EpochKeeper(
            self._state_file(trial.trial_id, execution),
            seed,
            self._kept_oracle.objective,
            callbacks,
            self._promoted_state(trial, execution),
            self._fits_plainly,
        )
        first = kwargs.get("initial_epoch", 0)
        go_on = keeper.first_epoch(first, kwargs.get("epochs", 1))
        if go_on != first:
            if not self._fit_takes("initial_epoch"):
                raise NotHandedOn
            kwargs["initial_epoch"] = go_on
        if self._fits_plainly or "verbose" in kwargs:
            kwargs["verbose"] = 2 if self._progress.verbose > 1 else 0
        keras.utils.set_random_seed(seed_of(seed))
        try:
            with warnings.catch_warnings():
                if watch is not None:
                    # What it warns of the trial is given up for.
                    warnings.filterwarnings("ignore", "GradientNormMonitor: the gradient")
                results = super()._build_and_fit_model(
                    trial, *args, callbacks=[*callbacks, keeper], **kwargs
                )
        finally:
            self._take_down(keeper, monitors, watch)
        if keeper.lost:
            raise TrialLost(keeper.lost)
        if isinstance(results, keras.callbacks.History):
            require_objective(self._kept_oracle.objective, results.history)
        return results

    def _promoted_state(self, trial, execution):
        """Where the trial goes on from another one, its state after its last epoch."""
        return None

    def _take_down(self, keeper, monitors, watch):
        record = self._record_so_far
        record["epochs"] += len(keeper.epochs)
        record["seconds"] += keeper.seconds
        if keeper.model is not None and keeper.model.built:
            record["parameters"] = keeper.model.count_params()
        for monitor in monitors:
            if len(monitor.gradient_record()):
                self._verdicts += monitor.verdicts()
        if watch is not None and watch.verdict:
            self._given_up = watch.verdict

    def _build_hypermodel(self, hp):
        """With the optimizer's variables there, a file of weights gives it its state, too.

        test_seams.py: test_weights_bring_the_optimizer_along.
        """
        model = super()._build_hypermodel(hp)
        optimizer = getattr(model, "optimizer", None)
        if optimizer and model.built and not optimizer.built:
            with maybe_distribute(self.distribution_strategy):
                optimizer.build(model.trainable_variables)
        return model

    def get_best_models(self, num_models=1):
        positive_integer("num_models", num_models)
        self._require_a_winner()
        return super().get_best_models(num_models)

    def load_model(self, trial):
        try:
            return super().load_model(trial)
        # What a file that is gone or damaged raises; json, too.
        except (*UNREADABLE, json.JSONDecodeError) as error:
            raise FileNotFoundError(
                f"The model of trial {int(trial.trial_id) + 1} is not in "
                f"{self._trial_place(trial.trial_id)} any more ({reason_of(str(error))}). Put "
                "back a copy of that folder, or train a model with the trial's hyperparameters, "
                "which get_best_hyperparameters() has."
            ) from error

    def get_best_hyperparameters(self, num_trials=1):
        positive_integer("num_trials", num_trials)
        self._require_a_winner()
        return super().get_best_hyperparameters(num_trials)

    def _require_a_winner(self):
        if self.oracle.get_best_trials(1):
            return
        ended = self._ended()
        if not ended:
            raise RuntimeError("The search has no trial that has ended: call search() first.")
        raise RuntimeError(
            f"No trial of {len(ended)} came to a finite score: {self._reasons()}. "
            f"Each trial's record.json has more, in {self._place}."
        )

    def _ended(self):
        trials = self._kept_oracle.trials.values()
        return [trial for trial in trials if trial.status in ("COMPLETED", "FAILED")]

    def _reasons(self):
        """Why trials have no score."""
        messages = (self._record(one).get("message") or one.message for one in self._ended())
        return "; ".join(list(dict.fromkeys(map(reason_of, messages)))[:5])

    def trials_table(self):
        """The trials from the best to the worst, then those that were lost, that failed and that
        run.

        Returns:
            A list with a dictionary for each trial: `"trial"`, its number, `"hyperparameters"`, a
            dictionary, `"score"`, `None` where there is none, `"epochs"`, those of all executions
            and, where Hyperband goes on with a trial, of what follows alone, `"parameters"`,
            `"seconds"`, and `"verdict"`: that of a `GradientNormMonitor` among the callbacks,
            "NON-FINITE" of a trial that was lost without one, "FAILED" or "RUNNING". Printed, it is
            a table in Markdown.
        """
        trials = list(self._kept_oracle.trials.values())
        return TrialsTable(
            [(trial, self._record(trial)) for trial in trials],
            highest_first=self._kept_oracle.worst < 0,
        )

    def plot(self):
        """Draws the trials in parallel coordinates: a line for each, from hyperparameter to
        hyperparameter to the score, its colour the verdict.

        Returns:
            A `matplotlib.figure.Figure`; `.savefig("search.png")` writes it.

        Raises:
            ValueError: no trial has ended.
        """
        table = self.trials_table()
        space = self._kept_oracle.get_space().space
        logarithmic = {hp.name for hp in space if getattr(hp, "sampling", None) == "log"}
        return plots.parallel_coordinates(
            table.ended(), table.hyperparameters, self._kept_oracle.objective.name, logarithmic
        )

    def _trial_place(self, trial_id):
        return located("directory", self.get_trial_dir(trial_id))

    def _state_file(self, trial_id, execution):
        return StateFile(self._trial_place(trial_id) / f"state-{execution}.pickle")

    def _record_path(self, trial_id):
        return self._trial_place(trial_id) / "record.json"

    def _record(self, trial):
        """What the trial's worker has written of it, `{}` where it has not ended."""
        return read_json(self._record_path(trial.trial_id)) or {}


# keras-tuner's, that hand on to that of `Search`.
_THEIRS = (keras_tuner.Hyperband.run_trial,)


def _difference(name, there, here):
    if name == "space":
        there, here = ([hp["config"] for hp in space or ()] for space in (there, here))
        names = [hp["name"] for hp in (*there, *here) if not (hp in there and hp in here)]
        return f"its space has other {', '.join(dict.fromkeys(names)) or 'order'}"
    return f"its {name} is {there!r}, not {here!r}"
