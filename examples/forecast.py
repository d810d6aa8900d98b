"""A forecast that says how sure it is: carbon dioxide over Mauna Loa, half a year ahead.

    python examples/forecast.py             # about a minute; writes forecast.png

A GRU reads weekly values and gives at each step, for each of the next 26 weeks, the quantiles 10%,
50% and 90% of what is to come (an encoder as of Wen et al., 2017, with the quantile loss). Beside
it, on the last fifth of the weeks, which no part of the training has seen:

    seasonal naive               the value of a year before
    the same, with quantiles     to which are added the quantiles of what it was off by in training
    and with the last rise       and, before that, how far the last value is from that a year before

The table: the quantile loss; MASE, the error of the median divided by that of seasonal naive in
the training weeks (Hyndman & Koehler, 2006); the share of values below the quantile 10%, between
the two and above that of 90%. The picture: the end of the series with a forecast, and the loss by
weeks ahead.

With a series of your own, a CSV file with a header line: --data PATH --column NAME --season STEPS.
"""

import csv
import importlib.util
import math
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import gallery
import keras
import numpy as np
from matplotlib.figure import Figure

from kerasrnn.layers import GRU
from kerasrnn.losses import QuantileLoss

QUANTILES = (0.1, 0.5, 0.9)
YEAR, HORIZON = 52, 26  # weeks
TRAIN, VALID = 0.65, 0.8  # where the parts end
LENGTH = 104  # steps of a training sequence
STYLES = {
    "seasonal naive": ("0.5", ":"),
    "the same, with quantiles": ("tab:blue", "--"),
    "and with the last rise": ("tab:green", "-."),
    "GRU": ("tab:red", "-"),
}


def main(argv=None):
    flags = gallery.parser(__doc__, "forecast.png")
    flags.add_argument("--data", type=pathlib.Path, help="a CSV file instead of carbon dioxide")
    flags.add_argument("--column", help="with --data: the column with the values; else the last")
    flags.add_argument("--season", type=gallery.at_least(1), default=YEAR, help="in steps")
    flags.add_argument("--horizon", type=gallery.at_least(1), default=HORIZON, help="in steps")
    flags.add_argument(
        "--length", type=gallery.at_least(1), default=LENGTH, help="steps of a training sequence"
    )
    flags.add_argument("--epochs", type=gallery.at_least(1), default=40, help="at most")
    flags.add_argument("--units", type=gallery.at_least(1), default=32)
    arguments = flags.parse_args(argv)
    settings = {name: getattr(arguments, name) for name in ("season", "horizon", "length")}
    if arguments.column and not arguments.data:
        flags.error("--column goes with --data")
    try:
        if arguments.data:
            series, name = read(arguments.data, arguments.column)
        else:
            series, name = carbon_dioxide(), "CO2, parts per million"
        check(series, **settings)
    except ValueError as error:
        flags.error(str(error))

    settings.update(seed=arguments.seed, epochs=arguments.epochs, units=arguments.units)
    one = result(series=series, **settings)
    rows = [
        [
            method,
            f"{one['loss'][method]:.4f}",
            f"{one['mase'][method]:.3f}",
            *(f"{100 * share:.1f}%" for share in one["shares"][method]),
        ]
        for method in STYLES
    ]
    print(f"{one['origins']} forecasts of {arguments.horizon} steps; {one['epochs']} epochs\n")
    head = ["", "quantile loss", "MASE", "below 10%", "between", "above 90%"]
    print(f"{gallery.table(head, rows)}\n")
    draw(one, series, name, arguments.season).savefig(arguments.out, dpi=90)
    print(f"Written: {arguments.out}")
    print("Next: python examples/forecast.py --horizon 52, or --data with a series of your own")


def result(kind=GRU, seed=0, series=None, season=YEAR, horizon=HORIZON, **settings):
    """Trains one net on the first part of a series and scores it on the last.

    Args:
        kind: A layer's class.
        series: (time,) numbers. Default: carbon dioxide.
        season: Its steps.
        horizon: Steps to forecast, no more than those of the season.
        **settings: As for `learn`.

    Returns:
        A dictionary. By method, the net under "GRU" whatever its kind: "loss", the mean quantile
        loss in the unit of the series; "mase"; "shares", of the values below, between and above the
        quantiles 10% and 90%; "by_step", the loss by steps ahead. "origins", the number of steps
        that were forecast from; "epochs", until the validation loss was least; "last", the last
        forecast of the net, (horizon, 3).

    Raises:
        ValueError: The series is too short for its season and horizon, or these do not fit.
    """
    series = carbon_dioxide() if series is None else series
    at, forecasts, epochs = learn(kind, seed, series, season, horizon, **settings)
    truth = ahead(series, at, horizon)
    end, _ = parts(series)
    naive = np.abs(changes(series, season)[season:end]).mean()
    scores = {method: score(truth, forecast, naive) for method, forecast in forecasts.items()}
    return {
        **{what: {m: one[what] for m, one in scores.items()} for what in scores["GRU"]},
        "origins": len(at),
        "epochs": epochs,
        "last": forecasts["GRU"][-1].tolist(),
    }


def learn(kind, seed, series, season, horizon, epochs=40, units=32, length=LENGTH):
    """Trains one net on the training part, as long as the loss on the validation part falls.

    The net reads by how much each value differs from that a season before, and forecasts the same
    of the values to come; mean and scale are those of the training part.

    Returns:
        The steps that are forecast from, (origins,); by method, the forecasts from there, (origins,
        horizon, 3); and the epochs until the validation loss was least.
    """
    check(series, season, horizon, length)
    keras.utils.set_random_seed(seed)
    end, end_valid = parts(series)
    change = changes(series, season)
    mean, scale = change[season:end].mean(), change[season:end].std()
    scaled = (change - mean) / scale

    model = net(kind, units, horizon)
    stop = keras.callbacks.EarlyStopping(patience=6, restore_best_weights=True)
    model.fit(
        *windows(scaled[season:end], length, horizon),
        validation_data=windows(scaled[end:end_valid], length, horizon),
        epochs=epochs,
        callbacks=[stop],
        verbose=0,
    )
    at = np.arange(end_valid - 1, len(series) - horizon)
    year_before = ahead(series, at - season, horizon)[..., None]
    # At each step from what it has read until then.
    known = model.predict(scaled[None, season:, None], verbose=0)[0].astype("float64")
    forecasts = baselines(change, at, season, horizon, end)
    forecasts["GRU"] = mean + scale * known[at - season]
    return at, {m: year_before + change for m, change in forecasts.items()}, stop.best_epoch + 1


def net(kind, units, horizon):
    change = keras.Input((None, 1))
    h = kind(units, return_sequences=True)(change)
    quantiles = keras.layers.Dense(horizon * len(QUANTILES))(h)
    quantiles = keras.layers.Reshape((-1, horizon, len(QUANTILES)))(quantiles)
    model = keras.Model(change, quantiles)
    model.compile(keras.optimizers.Adam(3e-3, global_clipnorm=1.0), QuantileLoss(QUANTILES))
    return model


def parts(series):
    """Where training and validation end."""
    return int(TRAIN * len(series)), int(VALID * len(series))


def check(series, season, horizon, length):
    """Raises a ValueError where a part would be too short."""
    if horizon > season:
        raise ValueError(
            "The horizon must be at most the season, since seasonal naive needs a value for each "
            f"step. Received: a horizon of {horizon} and a season of {season} steps"
        )
    end, end_valid = parts(series)
    needed = season + length + horizon, length + horizon, horizon
    held = end, end_valid - end, len(series) - end_valid
    if any(has < needs for has, needs in zip(held, needed, strict=True)):
        raise ValueError(
            f"With a season of {season}, a horizon of {horizon} and training sequences of {length} "
            "steps, {} values or more are needed to train on, {} to validate and {} to test. "
            "Received: a series of {} values, which gives {}, {} and {}".format(
                *needed, len(series), *held
            )
        )
    if np.ptp(changes(series, season)[season:end]) == 0:
        raise ValueError(f"The series repeats itself every {season} steps: nothing is to forecast")


def changes(series, season):
    """By how much each value differs from that a season before; NaN where there is none."""
    return np.concatenate([np.full(season, np.nan), series[season:] - series[:-season]])


def windows(change, length, horizon):
    """All stretches of a length, (n, length, 1), and for each of their steps what comes behind it,
    (n, length, horizon)."""
    starts = np.arange(len(change) - length - horizon + 1)
    steps = starts[:, None] + np.arange(length)
    return change[steps][..., None], ahead(change, steps, horizon)


def ahead(series, at, horizon):
    """The next values behind each step, on a last axis."""
    return series[at[..., None] + 1 + np.arange(horizon)]


def baselines(change, at, season, horizon, end):
    """What to add to the value of a season before, (origins, horizon, 3), without a net."""
    trained = np.arange(season, end - horizon)
    off = ahead(change, trained, horizon)
    quantiles, of_rise = (
        np.quantile(errors, QUANTILES, axis=0).T for errors in (off, off - change[trained, None])
    )
    naive = np.zeros((len(at), horizon, len(QUANTILES)))
    return dict(
        zip(STYLES, (naive, naive + quantiles, change[at, None, None] + of_rise), strict=False)
    )


def score(truth, forecast, naive):
    """See `result`."""
    above = truth[..., None] - forecast
    tau = np.array(QUANTILES)
    losses = np.maximum(tau * above, (tau - 1) * above).mean(axis=-1)
    below, over = truth < forecast[..., 0], truth > forecast[..., -1]
    return {
        "loss": losses.mean().item(),
        "mase": (np.abs(above[..., 1]).mean() / naive).item(),
        "shares": [below.mean().item(), (~below & ~over).mean().item(), over.mean().item()],
        "by_step": losses.mean(axis=0).tolist(),
    }


def carbon_dioxide():
    """Parts per million of CO2 over Mauna Loa, 2,284 weeks from March 1958 to December 2001, as
    shipped by the package statsmodels (Keeling & Whorf, 2004); 59 weeks without a value have that
    of the week before."""
    gallery.require("statsmodels")
    package = importlib.util.find_spec("statsmodels")
    path = pathlib.Path(package.origin).parent / "datasets" / "co2" / "co2.csv"
    series, _ = read(path, "co2")
    return series


def read(path, column=None):
    """A series from a CSV file with a header line; what is empty has the value before it.

    Args:
        column: Its name. Default: that of the last column.

    Returns:
        (time,) numbers, and the column's name.

    Raises:
        ValueError: There is no such file or column, or what stands in it is no number.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            header, *rows = [row for row in csv.reader(file) if row] or [[]]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--data must name a CSV file. Received: {path}: {error}") from error
    if header and not any(math.isnan(as_number(name)) for name in header):
        raise ValueError(
            f"The first line of {path} must have the names of the columns. Received: "
            f"{', '.join(header)}"
        )
    if not header or (column or header[-1]) not in header:
        raise ValueError(
            f"--column must be one of {', '.join(header) or 'the columns'} in {path}. "
            f"Received: {column}"
        )
    column = column or header[-1]
    place, series = header.index(column), []
    for number, row in enumerate(rows, start=1):
        text = row[place].strip() if place < len(row) else ""
        value = series[-1] if series and not text else as_number(text)
        if not math.isfinite(value):
            raise ValueError(
                f"The column {column} of {path} must hold numbers, one a row. "
                f"Received in row {number} below the header: {text!r}"
            )
        series.append(value)
    return np.array(series), column


def as_number(text):
    """NaN for what is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def draw(one, series, name, season):
    """The end of the series with the last forecast, and the loss by steps ahead."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    end, loss = figure.subplots(1, 2, width_ratios=(3, 2))
    last = np.array(one["last"])
    steps = np.arange(len(last)) + 1
    known = np.arange(-min(2 * season, len(series) - len(last)) + 1, 1)
    end.plot(known, series[len(series) - len(last) + known - 1], color="k", label="known")
    end.plot(steps, series[-len(last) :], "k:", label="what came")
    end.fill_between(steps, last[:, 0], last[:, -1], color="0.75", label="10% to 90%, GRU")
    end.plot(steps, last[:, 1], color="tab:red", label="50%, GRU")
    end.axvline(0.5, color="0.6", linewidth=1, zorder=0)
    end.set(xlabel="steps from the last known value", ylabel=name)
    end.set_title("The last forecast")
    end.legend(loc="upper left")
    for method, (color, line) in STYLES.items():
        loss.plot(steps, one["by_step"][method], color=color, linestyle=line, label=method)
    loss.set(xlabel="steps ahead", ylabel="quantile loss, unit of the series", ylim=(0, None))
    loss.set_title("Loss in the test period")
    loss.legend(handlelength=4)
    for axis in (end, loss):
        axis.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
