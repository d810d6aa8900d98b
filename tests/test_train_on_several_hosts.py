"""examples/train_on_several_hosts.py, as real processes."""

import contextlib
import json
import re

import numpy as np
import pytest
from several_processes import Started, free_ports

OPTIONS = "--units", "4", "--batch", "8"
SCRIPT = "examples/train_on_several_hosts.py"


@contextlib.contextmanager
def two_hosts(place, folder, *options):
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    with contextlib.ExitStack() as all_of_them:
        hosts = []
        for index in range(2):
            task = {"type": "worker", "index": index}
            config = json.dumps({"cluster": {"worker": workers}, "task": task})
            arguments = SCRIPT, "--folder", folder, *OPTIONS, *options
            host = Started(place / f"host-{index}.txt", *arguments, TF_CONFIG=config)
            hosts.append(all_of_them.enter_context(host))
        yield hosts


def losses(printed):
    """By the number of the step."""
    return {int(n): float(v) for n, v in re.findall(r"step (\d+) loss ([\d.]+)", printed)}


def alone(tmp_path, steps):
    arguments = SCRIPT, "--folder", tmp_path / "alone", *OPTIONS, "--steps", steps
    with Started(tmp_path / "alone.txt", *arguments) as process:
        assert process.wait() == 0, process.printed()
        return losses(process.printed())


@pytest.mark.slow
def test_two_hosts_train_as_one_process(tmp_path):
    expected = alone(tmp_path, 6)
    with two_hosts(tmp_path, tmp_path / "both", "--steps", "6") as hosts:
        for host in hosts:
            assert host.wait() == 0, host.printed()
            found = losses(host.printed())
            assert found.keys() == expected.keys() == set(range(6))
            np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-5)


@pytest.mark.slow
def test_a_host_that_is_killed_and_both_started_again(tmp_path):
    """The other one ends with an error within a minute; then they go on from the checkpoint."""
    endless = "--steps", "100000", "--save-every", "4"
    with two_hosts(tmp_path, tmp_path / "both", *endless) as (first, second):
        first.wait_for("step 6 ")
        second.kill()
        assert first.wait(60) not in (0, None)
        last = max(losses(first.printed()))
    steps = str(last + 6)
    with two_hosts(tmp_path, tmp_path / "both", "--steps", steps) as hosts:
        for host in hosts:
            assert host.wait() == 0, host.printed()
            again = losses(host.printed())
    # The step before may have been saved, and the one that was under way not been printed.
    assert min(again) % 4 == 0
    assert last - 4 < min(again) <= last + 1
    expected = alone(tmp_path, steps)
    for number, loss in again.items():
        assert loss == pytest.approx(expected[number], rel=1e-4)


@pytest.mark.slow
def test_hosts_with_folders_of_their_own(tmp_path):
    """One that has a checkpoint, and one that has none."""
    alone(tmp_path, 20)
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    with contextlib.ExitStack() as both:
        hosts = []
        for index, folder in enumerate(("alone", "other")):
            task = {"type": "worker", "index": index}
            config = json.dumps({"cluster": {"worker": workers}, "task": task})
            arguments = SCRIPT, "--folder", tmp_path / folder, *OPTIONS, "--steps", "30"
            output = tmp_path / f"host-{index}.txt"
            hosts.append(both.enter_context(Started(output, *arguments, TF_CONFIG=config)))
        for host in hosts:
            assert host.wait() == 2, host.printed()
            assert "--folder must be the same on all hosts" in host.printed()
