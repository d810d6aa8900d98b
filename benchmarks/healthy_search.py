"""What giving up lost trials saves: a search with `HealthyObjective` beside keras-tuner's own over
the same space, seeds and data.

    python benchmarks/healthy_search.py [--seeds 3] [--trials 8] [--epochs 10]

Two real data sets: sentences of film reviews (`examples/reviews.py`), positive or negative, and
scikit-learn's handwritten digits, read pixel by pixel. The space is one of somebody who knows
little beforehand: three cells, one or two layers, learning rates over five decades, with a clip or
without. Every search runs in a process of its own; searches that are done are in `--out`, where a
run that was stopped goes on.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

HERE = pathlib.Path(__file__).resolve()
SIDES = ("kerasrnn", "keras-tuner")
DATA = ("reviews", "digits")


def reviews():
    import keras

    sys.path.insert(0, str(HERE.parents[1] / "examples"))
    import reviews as films

    texts, labels = films.sentences(1200)
    vectorize = keras.layers.TextVectorization(5000, output_sequence_length=30)
    vectorize.adapt(texts)
    return vectorize(texts).numpy(), labels, {"task": "binary", "vocabulary_size": 5000}


def digits():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = (x / 16).reshape(len(x), 64, 1).astype("float32")
    return x, y, {"task": "multiclass", "features": 1, "outputs": 10}


def search(data, side, seed, trials, epochs):
    """Seconds, the best score and the verdicts of a search."""
    import keras_tuner

    from kerasrnn import tuning

    x, y, net = {"reviews": reviews, "digits": digits}[data]()
    hypermodel = tuning.RNNHyperModel(
        **net,
        cells=("simple_rnn", "lstm", "gru"),
        units=(16, 32),
        depths=(1, 2),
        dropouts=(0.0, 0.3),
        connection=None,
        bidirectional=False,
        optimizers=("adam", "sgd"),
        learning_rates=(1e-4, 10.0),
        clips=(None, "global_clipnorm"),
    )
    objective, tuner = "val_accuracy", keras_tuner.RandomSearch
    if side == "kerasrnn":
        objective, tuner = tuning.HealthyObjective(objective), tuning.RandomSearch
    with tempfile.TemporaryDirectory() as folder:
        made = tuner(hypermodel, objective, max_trials=trials, seed=seed, directory=folder)
        began = time.perf_counter(), time.process_time()
        made.search(x, y, validation_split=0.2, epochs=epochs, batch_size=32, verbose=0)
        seconds = time.perf_counter() - began[0], time.process_time() - began[1]
        scores = [trial.score for trial in made.oracle.get_best_trials(trials)]
        verdicts = []
        if side == "kerasrnn":
            verdicts = [row["verdict"] for row in made.trials_table() if row["score"] is None]
    return {"seconds": seconds, "best": scores[0], "lost": verdicts}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("healthy_search.json"))
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        data, side, seed = arguments.child
        print(json.dumps(search(data, side, int(seed), arguments.trials, arguments.epochs)))
        return
    done = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    columns = ["data", "seed", "seconds", "/ keras-tuner", "of the processor"]
    columns += ["best val_accuracy", "keras-tuner's", "given up"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    ratios = []
    for data in DATA:
        for seed in range(arguments.seeds):
            for side in SIDES:
                key = f"{data} {side} {seed} {arguments.trials} {arguments.epochs}"
                if key not in done:
                    command = [sys.executable, HERE, "--trials", str(arguments.trials)]
                    command += ["--epochs", str(arguments.epochs)]
                    command += ["--child", data, side, str(seed)]
                    child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                    done[key] = json.loads(child.stdout.splitlines()[-1])
                    arguments.out.write_text(json.dumps(done, indent=1))
            ours, theirs = (
                done[f"{data} {side} {seed} {arguments.trials} {arguments.epochs}"]
                for side in SIDES
            )
            wall, cpu = (a / b for a, b in zip(ours["seconds"], theirs["seconds"], strict=True))
            ratios.append(wall)
            lost = ", ".join(f"{ours['lost'].count(v)} {v}" for v in dict.fromkeys(ours["lost"]))
            print(
                f"| {data} | {seed} | {ours['seconds'][0]:.0f} | {wall:.2f} | {cpu:.2f} "
                f"| {ours['best']:.3f} | {theirs['best']:.3f} | {lost} |",
                flush=True,
            )
    print(f"\nMedian of the ratios: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
