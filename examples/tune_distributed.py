"""A search of which several processes run trials side by side, on one machine or on many.

To try it out, a chief and two workers on this machine:

    python examples/tune_distributed.py --folder search --workers 2

By hand, on any machines that see the folder, one process each, the first of them the chief, which
hands out the trials and runs none:

    export KERASTUNER_ORACLE_IP=192.0.2.1 KERASTUNER_ORACLE_PORT=8000
    KERASTUNER_TUNER_ID=chief python examples/tune_distributed.py --folder /shared/search
    KERASTUNER_TUNER_ID=worker-0 CUDA_VISIBLE_DEVICES=0 python examples/tune_distributed.py ...

Any of them may be killed and started again. Without the variables one process runs all trials.
"""

import argparse
import os
import socket
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

import kerasrnn


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", required=True, help="of the search, the same for all processes")
    parser.add_argument("--workers", type=int, default=0, help="to start here, beside a chief")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=4)
    arguments = parser.parse_args(arguments)
    if arguments.workers:
        start(arguments)
        return

    # Not all of a GPU's memory at once, for several workers on one.
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    x, y = kerasrnn.tasks.adding_problem(2048, 30)
    hypermodel = kerasrnn.tuning.RNNHyperModel(
        "regression", features=2, cells=("gru", "lstm"), units=(16, 32), depths=1
    )
    search = kerasrnn.tuning.RandomSearch(
        hypermodel, "val_loss", max_trials=arguments.trials, seed=0, directory=arguments.folder
    )
    search.search(x, y, validation_split=0.25, epochs=arguments.epochs)
    if os.environ.get("KERASTUNER_TUNER_ID", "chief") == "chief":
        print(search.trials_table())


def start(arguments):
    """The same command for a chief and so many workers, to their end."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = str(one.getsockname()[1])
    command = [sys.executable, __file__, "--folder", arguments.folder]
    command += ["--trials", str(arguments.trials), "--epochs", str(arguments.epochs)]
    where = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": port}
    names = ["chief", *(f"worker-{number}" for number in range(arguments.workers))]
    processes = [
        subprocess.Popen(command, env={**os.environ, **where, "KERASTUNER_TUNER_ID": name})
        for name in names
    ]
    codes = [process.wait() for process in processes]
    if any(codes):
        sys.exit("A process of the search failed; the same command goes on with it.")


if __name__ == "__main__":
    main()
