"""The report on how a model fares."""

import dataclasses
import math
import textwrap
from typing import Any, Protocol, runtime_checkable

from kerasrnn.diagnostics import plots
from kerasrnn.diagnostics.flow import GradientFlow
from kerasrnn.diagnostics.health import page, progress
from kerasrnn.diagnostics.health.findings import described, verdicts
from kerasrnn.diagnostics.health.measured import measure
from kerasrnn.diagnostics.health.notes import notes
from kerasrnn.diagnostics.health.settings import Settings
from kerasrnn.diagnostics.health.trivial import TrivialPredictor
from kerasrnn.diagnostics.health.verdict import SEVERITIES, gravest, grouped, in_other_layers
from kerasrnn.diagnostics.looking import as_batch, check_compiled
from kerasrnn.diagnostics.reach import layer_paths
from kerasrnn.files import Address, located, replacing_file
from kerasrnn.updates.record import GradientRecord


@runtime_checkable
class Monitor(Protocol):
    """Holds the record of a training, as a `GradientNormMonitor` does."""

    def gradient_record(self) -> GradientRecord:
        """The norms of the training's updates."""


@dataclasses.dataclass(frozen=True, repr=False)
class HealthReport:
    """How a model fares. Printed, it is its text; in a notebook it shows its page.

    Attributes:
        verdicts: A list of `kerasrnn.diagnostics.Verdict`, (code, layer, numbers, meaning,
            remedy, further, severity), the causes before what comes of them, the gravest first.
        notes: Sentences on what might mislead.
        layers: For each recurrent layer by its path a `LayerHealth`.
        flow: The `GradientFlow`, or `None` without recurrent layers or a finite gradient.
        name: The model's name.
        norms: The figure of the gradient norms over the updates, or `None` without a monitor.
        loss: That of the model at the batch, penalties included.
        penalties: The part of it that regularizers and `add_loss` add.
        trivial: The `TrivialPredictor` there, (loss, what), which predicts the mean of `y` or the
            class frequencies; `None` where none can be scored.
        trend: The loss at the first update of the training, the mean over the last tenth of those
            that are known, how many these are, and how many updates at the end had NaN; `None`
            where no monitor knows it.
        settings: What is set in model and training.
        since_previous: Sentences on what has changed since the `previous` report.
        tried, rates: What was advised and tried so far, and the learning rates found too low and
            too high, for the next report.
    """

    verdicts: list
    notes: list
    layers: dict
    flow: GradientFlow | None
    name: str
    norms: Any
    loss: float = math.nan
    penalties: float = 0.0
    trivial: TrivialPredictor | None = None
    trend: tuple | None = None
    settings: Settings = dataclasses.field(default_factory=Settings)
    since_previous: tuple = ()
    tried: dict = dataclasses.field(default_factory=dict)
    rates: tuple = (0.0, math.inf)

    @property
    def status(self):
        """ "sick", "attention" or "healthy": the gravest severity of a verdict."""
        return gravest(self.verdicts).severity

    @property
    def summary(self):
        """What comes first: a list of sentences on the status, the loss and the next step."""
        said = [f"Status: {self.status}.", f"The loss is {self.loss:.3g}"]
        if self.penalties:
            said[1] += f", of which {self.penalties:.3g} are penalties, as of regularizers"
        if self.trivial:
            better = self.loss - self.penalties < self.trivial.loss
            worse = "" if better else ", so that nothing is learned yet"
            said[1] += f"; always predicting {self.trivial.what} has {self.trivial.loss:.3g}{worse}"
        said[1] += "."
        if self.trend:
            first, last, updates, lost = self.trend
            many = f"{updates} update{'s' * (updates > 1)}"
            then = f", and was NaN from then on, for {lost}" if lost else ""
            said.append(f"In training it went from {first:.3g} to {last:.3g} in {many}{then}.")
        worst = gravest(self.verdicts)
        if self.status != SEVERITIES[0] and worst.remedy:
            said.append(f"Next step: {worst.remedy}")
        return said

    @property
    def text(self):
        """The report for a terminal."""
        parts = [textwrap.fill(" ".join(self.summary), 96)]
        if self.since_previous:
            since = " ".join(self.since_previous)
            parts.append(textwrap.fill(f"Since the previous report. {since}", 96))
        for verdict, others in grouped(self.verdicts):
            same = f" {in_other_layers(others)}" if others else ""
            parts.append(textwrap.fill(f"{verdict}{same}", 96))
        parts += [textwrap.fill(f"Note: {note}", 96) for note in self.notes]
        if self.layers:
            rows = page.table(self)
            widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
            lines = (
                "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
                for row in rows
            )
            parts += ["\n".join(lines), textwrap.fill(page.KEY, 96)]
        return "\n\n".join([f"Health of {self.name}", *parts])

    def __str__(self):
        return self.text

    def save(self, path):
        """Writes the page as one HTML file that needs nothing else; it replaces what stood there.

        Args:
            path: Path of the file, in a folder that is there, or an address that `tf.io.gfile`
                knows, as "gs://bucket/page.html".

        Raises:
            TypeError: `path` is no path.
            ValueError: `path` is an address that TensorFlow does not know.
            IsADirectoryError: `path` is that of a folder.
            FileNotFoundError: the folder is missing.
        """
        path = located("path", path)
        if path.is_dir():
            raise IsADirectoryError(
                f"`path` must name a file. Received: path={str(path)!r}, which is a folder"
            )
        # Most file systems behind an address have no folders, but longer names.
        if not (isinstance(path, Address) or path.parent.is_dir()):
            raise FileNotFoundError(
                "`path` must name a file in a folder that exists. "
                f"Received: path={str(path)!r}, without {str(path.parent)!r}"
            )
        html = page.document(self)
        with replacing_file(path) as file:
            file.write(html.encode("utf-8"))

    def _repr_html_(self):
        return page.fragment(self)


def health_report(model, x, y, monitor=None, previous=None):
    """Says what is wrong with the gradients of a model, and what to change.

    {verdicts}

    What comes from training needs the `monitor`. Where no gradient comes to a recurrent layer at
    all, it is not said to vanish in it.

    Where a gradient vanishes in a layer of a model whose loss is under 90% of the trivial
    predictor's, one more forward pass, in which the layer's inputs from before the steps that it
    reaches are exchanged among the samples, tells whether they matter. If the loss stays as it was,
    and is under half of the trivial predictor's or no longer fell when the training ended,
    VANISHING is no verdict but a note: it moves, with two standard errors on top, by less than a
    tenth of itself or than a thousandth of the trivial predictor's. Else the verdict has two
    numbers, `vanishes`, the steps that are left, and `matters`, by how much the loss rises. Less
    than eight samples that differ there say nothing, nor does a loss that rises where a layer is
    read at every step. A loss under 5% of the trivial predictor's makes a note of it, too.

    Gates are what a cell takes its `recurrent_activation` of, where that lies in [0, 1]. Their
    values are not counted on the side on which they leave the state as it is (f over 0.9975
    and i under 0.0025 in an LSTM, z over 0.9975 in a GRU): so a cell remembers, and so
    `kerasrnn.initializers.Chrono` starts it.

    A layer dies as a unit does (Lu et al., 2020): it gives 0 for any input, and so stays as it is.
    One that gives something else and gets no gradient is named where no such layer explains it.

    Every verdict has one next step, and the others behind it; none names what is set already. The
    one that the summary names, of the first of the gravest, is to be taken; then train anew, and
    hand this report on as `previous`: the next one says what was changed, what came of it, and no
    longer puts first what did not help. Where no setting shows whether a step was taken, that one
    alone counts as taken.

    Args:
        model: A compiled Keras model.
        x, y: A batch, as for `fit`; large enough to stand for the data, and small enough to be run
            step by step. It is measured as in inference, and the model is left as it was.
        monitor: The `GradientNormMonitor` of its training, for what is said of norms, clips
            and the learning rate.
        previous: The `HealthReport` before the last change, or `None`.

    Returns:
        A `HealthReport`: `.status` ("healthy", "attention" or "sick"), `.verdicts`, `.text` for a
        terminal, `.save("page.html")`. `python -m kerasrnn.diagnostics model.keras data.npz` prints
        it, and has the status as its exit code.

    Raises:
        ValueError: The model is not compiled, the batch is empty, all masked or none of arrays, x
            and y differ in their samples, y is missing though the loss needs it, `monitor` has
            recorded nothing or another model, or `previous` is of a task with other inputs or
            targets.
        TypeError: `monitor` is no `GradientNormMonitor`, or `previous` no `HealthReport`.

    Source: Pascanu, Mikolov & Bengio (2013), section 2.1, for gradients that vanish and explode;
    Vogt et al. (2020) for the Lyapunov exponent that is set against the spectral radius; Lu, Shin,
    Su & Karniadakis (2020), "Dying ReLU and initialization"; Karpathy, Stanford CS231n, "Neural
    Networks Part 3", section "Ratio of weights:updates".

    Example:

    >>> model = keras.Sequential([kerasrnn.layers.SimpleRNN(4, name="rnn"), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> model.build((None, 40, 3))
    >>> model.get_layer("rnn").set_weights([np.ones((3, 4)), 0.1 * np.eye(4), np.zeros(4)])
    >>> x = np.random.default_rng(0).normal(size=(8, 40, 3))
    >>> report = kerasrnn.diagnostics.health_report(model, x, np.ones((8, 1)))
    >>> [(verdict.code, verdict.layer) for verdict in report.verdicts]
    [('VANISHING', 'rnn')]
    """
    check_compiled(model)
    x, y = as_batch(model, x=x, y=y)
    record = _record_of(monitor, model)
    if previous is not None and not isinstance(previous, HealthReport):
        raise TypeError(
            "`previous` must be the HealthReport before the last change, or None. "
            f"Received: previous={previous!r}"
        )
    if not model.built:
        model(x)
    measured = measure(model, x, y, record)
    settings = measured.settings
    if previous:
        progress.check_same_task(settings, previous.settings)
        rates = progress.known_rates(previous, settings)
        measured = dataclasses.replace(measured, rates=rates)
    paths = layer_paths(model)
    found = [v._replace(layer=paths.get(v.layer, v.layer)) for v in verdicts(measured)]
    tried, since = {}, ()
    if previous:
        found, tried = progress.escalated(found, settings, previous)
        since = tuple(progress.since(found, settings, measured.loss, previous))
    return HealthReport(
        found,
        notes(measured),
        measured.layers,
        measured.flow,
        model.name,
        None if record is None else plots.narrowed(plots.gradient_norms(record)),
        measured.loss,
        measured.penalties,
        measured.trivial,
        None if record is None else record.trend,
        settings,
        since,
        tried,
        measured.rates,
    )


health_report.__doc__ = health_report.__doc__.replace("{verdicts}", described())


def _record_of(monitor, model):
    """The record of the model's training, or `None` without a monitor."""
    if monitor is None:
        return None
    if isinstance(monitor, type) or not isinstance(monitor, Monitor):
        raise TypeError(
            "`monitor` must be the GradientNormMonitor of the model's fit, or None. "
            f"Received: monitor={monitor!r}"
        )
    record = monitor.gradient_record()
    if not len(record):
        raise ValueError(
            "`monitor` must have recorded updates: pass it to fit as a callback first. "
            f"Received: a GradientNormMonitor without any. {record.absence}".rstrip(". ")
        )
    # Not the other way round: a layer may have been frozen then.
    known = {variable.path for variable in model.variables}
    if missing := [path for path in record.variables if path not in known]:
        raise ValueError(
            "`monitor` must have watched this model. Received: a record of "
            f"{', '.join(missing)}, which the model, {model.name}, does not have"
        )
    return record
