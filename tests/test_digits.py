import digits
import numpy as np
from mnist1d.data import get_dataset_args, make_dataset


def test_the_digits():
    train, validation, test = digits.digits()
    assert [len(y) for _, y in (train, validation, test)] == [3500, 500, 1000]
    assert all(x.shape[1:] == (40, 1) for x, _ in (train, validation, test))
    made = make_dataset(get_dataset_args())
    np.testing.assert_allclose(test[0][..., 0], made["x_test"], rtol=1e-6)
    np.testing.assert_array_equal(test[1], made["y_test"])
    np.testing.assert_array_equal(np.append(train[1], validation[1]), made["y"])
    seen = [{each.tobytes() for each in x} for x, _ in (train, validation, test)]
    assert not seen[0] & seen[1] | seen[0] & seen[2] | seen[1] & seen[2]


def test_the_chance_of_others_is_left_alone():
    np.random.seed(7)
    expected = np.random.rand()
    np.random.seed(7)
    digits.digits.__wrapped__()
    assert np.random.rand() == expected


def test_a_result(monkeypatch):
    parts = [(x[:128], y[:128]) for x, y in digits.digits()]
    monkeypatch.setattr(digits, "digits", lambda: parts)
    found = digits.result("SimpleRNN", seed=1, epochs=2)
    assert found["parameters"] == 64 * (1 + 64 + 1) + 10 * 65
    assert len(found["validation"]) == 2
    assert 0 <= found["accuracy"] <= 1


def test_the_script(capsys, tmp_path, monkeypatch):
    found = {"accuracy": 0.5, "validation": [0.1, 0.4], "parameters": 77}
    monkeypatch.setattr(digits, "result", lambda *args: found)
    digits.main(["--out", str(tmp_path / "x.png")])
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines]
    assert ["GRU,", "both", "directions", "77", "0.500"] in rows
    assert ["published:", "CNN", "0.94"] in rows
    assert lines[-1].startswith("Next: python examples/digits.py")
    assert (tmp_path / "x.png").stat().st_size > 10_000
