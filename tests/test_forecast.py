"""The script of the gallery with a forecast."""

import re

import forecast
import gallery
import numpy as np
import pytest

from kerasrnn.layers import GRU
from kerasrnn.losses import QuantileLoss

SMALL = {"epochs": 1, "units": 4, "length": 10}


@pytest.fixture
def series(rng):
    t = np.arange(300)
    return 10 + 0.01 * t + np.sin(2 * np.pi * t / 7) + 0.1 * rng.normal(size=300)


def test_carbon_dioxide():
    series = forecast.carbon_dioxide()
    assert len(series) == 2284
    assert np.isfinite(series).all()
    assert series[:6].tolist() == [316.1, 317.3, 317.6, 317.5, 316.4, 316.9]


def test_no_forecast_sees_what_is_to_come(series):
    """A value of the test part, far off, changes none that was made before it: neither scale nor
    quantiles nor weights nor states."""
    at, forecasts, _ = forecast.learn(GRU, 0, series, 7, 5, **SMALL)
    assert (at[0], at[-1]) == (239, 294)
    series[250] += 1000
    _, others, _ = forecast.learn(GRU, 0, series, 7, 5, **SMALL)
    assert {*forecasts} == {*others} == {*forecast.STYLES}
    for method in forecasts:
        assert forecasts[method].shape == (56, 5, 3)
        # But for the order in which threads sum up.
        np.testing.assert_allclose(forecasts[method][:11], others[method][:11], rtol=1e-5)
        assert not np.allclose(forecasts[method][11:], others[method][11:], rtol=1e-4)
    assert not np.allclose(forecasts["GRU"][11], others["GRU"][11], rtol=1e-4)


def test_the_parts_to_train_on_and_to_validate(series):
    """Each step of each stretch with the values behind it, none of them of another part."""
    x, y = forecast.windows(series[7:195], 10, 5)
    assert x.shape == (188 - 15 + 1, 10, 1)
    assert y.shape == (188 - 15 + 1, 10, 5)
    for i, t in ((0, 0), (40, 3), (173, 9)):
        assert x[i, t, 0] == series[7 + i + t]
        np.testing.assert_array_equal(y[i, t], series[7 + i + t + 1 :][:5])
    assert y[-1, -1, -1] == series[194]


def test_the_baselines(series):
    at, forecasts, _ = forecast.learn(GRU, 0, series, 7, 5, **SMALL)
    off = {k: [] for k in range(1, 6)}
    rise = {k: [] for k in range(1, 6)}
    for s in range(7, 190):
        for k in off:
            off[k].append(series[s + k] - series[s + k - 7])
            rise[k].append(off[k][-1] - (series[s] - series[s - 7]))
    t = at[8]
    for k in off:
        naive = series[t + k - 7]
        one, two, three = (forecasts[name][8, k - 1] for name in [*forecast.STYLES][:3])
        np.testing.assert_allclose(one, naive)
        np.testing.assert_allclose(two, naive + np.quantile(off[k], (0.1, 0.5, 0.9)))
        last = series[t] - series[t - 7]
        np.testing.assert_allclose(three, naive + last + np.quantile(rise[k], (0.1, 0.5, 0.9)))


def test_the_scores(rng):
    truth, quantiles = rng.normal(size=(6, 4)), np.sort(rng.normal(size=(6, 4, 3)))
    one = forecast.score(truth, quantiles, naive=2.0)
    assert one["loss"] == pytest.approx(float(QuantileLoss()(truth, quantiles)), rel=1e-5)
    assert one["loss"] == pytest.approx(np.mean(one["by_step"]))
    assert one["mase"] == pytest.approx(np.abs(truth - quantiles[..., 1]).mean() / 2)
    low, high = (truth < quantiles[..., 0]).mean(), (truth > quantiles[..., 2]).mean()
    assert one["shares"] == pytest.approx([low, 1 - low - high, high])


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_the_script_on_data_of_the_user(tmp_path, capsys, series, monkeypatch):
    monkeypatch.delattr(forecast, "carbon_dioxide")
    values = [f"{value:.4f}" for value in series]
    # Of which one is missing.
    values[100] = ""
    rows = [f"{day},{value},x" for day, value in enumerate(values)]
    path = write(tmp_path / "sales.csv", "day,sold,shop", *rows)
    read, name = forecast.read(path, "sold")
    assert name == "sold"
    assert read[100] == read[99]
    np.testing.assert_allclose(np.delete(read, 100), np.delete(series, 100), atol=1e-4)

    flags = ["--data", str(path), "--column", "sold", "--season", "7", "--horizon", "5"]
    flags += ["--length", "10", "--epochs", "1", "--units", "4", "--out", str(tmp_path / "a.png")]
    forecast.main(flags)
    assert (tmp_path / "a.png").stat().st_size > 10_000
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("56 forecasts of 5 steps; 1 epochs")
    for method in forecast.STYLES:
        (row,) = (line for line in lines if line.startswith(f"{method} "))
        assert row.count("%") == 3
    assert lines[-1].startswith("Next: python examples/forecast.py")


@pytest.mark.parametrize(
    ("lines", "flags", "said"),
    [
        (["day,sold", "1,2", "2,many"], [], "column sold .* row 2 below the header: 'many'"),
        (["day,sold", "1,"], [], "column sold .* row 1 below the header: ''"),
        (["day,sold", "1,2", "2,inf"], [], "column sold .* row 2 below the header: 'inf'"),
        (["day,sold", "1,2"], ["--column", "price"], "one of day, sold .* Received: price"),
        ([""], [], "one of the columns"),
        (["1.5", "2"], [], "first line of .* must have the names of the columns. Received: 1.5"),
        (["day,sold", "1,2", "2,3"], [], "134 to train on|a series of 2 values"),
        (["sold", *map(str, [1, 2] * 500)], ["--season", "2"], "at most the season"),
        (["sold", *map(str, [1, 2] * 500)], ["--season", "2", "--horizon", "1"], "repeats itself"),
    ],
)
def test_data_that_do_not_fit(tmp_path, capsys, lines, flags, said):
    path = write(tmp_path / "sales.csv", *lines)
    with pytest.raises(SystemExit):
        forecast.main(["--data", str(path), *flags])
    assert re.search(said, " ".join(capsys.readouterr().err.split()))


def test_no_file_and_a_column_without_one(tmp_path, capsys):
    for flags, said in (
        (["--data", str(tmp_path / "none.csv")], "none.csv"),
        (["--column", "a"], "--data"),
    ):
        with pytest.raises(SystemExit):
            forecast.main(flags)
        assert said in capsys.readouterr().err


def test_a_missing_package_names_its_extra(monkeypatch):
    monkeypatch.setattr(gallery.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ModuleNotFoundError, match=r'lacks statsmodels.*pip install -e "\.\[examples\]"'
    ):
        forecast.carbon_dioxide()
