"""Trains one model on several hosts, each of which takes its part of every batch.

Start it on each host with the same arguments and its place among all in the environment:

    TF_CONFIG='{"cluster": {"worker": ["host-a:2222", "host-b:2222"]}, "task": {"type": "worker",
    "index": 0}}' python examples/train_on_several_hosts.py --folder /shared/run

Without TF_CONFIG it trains in one process, to the same losses. Where a host fails, the others end
with an error; started again, all go on from the last checkpoint in the folder, which all have to
see. It is a loop of its own, since `fit` does not train under MultiWorkerMirroredStrategy.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import kerasrnn

SUM = tf.distribute.ReduceOp.SUM


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", required=True, help="of checkpoints, the same on all hosts")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--save-every", type=int, default=20, help="steps")
    parser.add_argument("--batch", type=int, default=64, help="sequences on all hosts together")
    parser.add_argument("--units", type=int, default=32)
    arguments = parser.parse_args(arguments)

    strategy, host, hosts = tf.distribute.get_strategy(), 0, 1
    if "TF_CONFIG" in os.environ:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        place = strategy.cluster_resolver
        host, hosts = place.task_id, len(place.cluster_spec().job_tasks("worker"))
    if strategy.num_replicas_in_sync != hosts:
        parser.error(f"a host takes one device. Received: {strategy.num_replicas_in_sync} in all")
    if arguments.batch % hosts:
        parser.error(
            f"--batch must be a multiple of {hosts} hosts. Received: --batch {arguments.batch}"
        )

    keras.utils.set_random_seed(0)
    with strategy.scope():
        layers = [kerasrnn.layers.LSTM(arguments.units), keras.layers.Dense(1)]
        model = keras.Sequential([keras.Input((None, 2)), *layers])
        optimizer = keras.optimizers.Adam(0.005)
        optimizer.build(model.trainable_variables)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer)
    manager = tf.train.CheckpointManager(checkpoint, arguments.folder, max_to_keep=2)
    checkpoint.restore(manager.latest_checkpoint)

    def update(x, y):
        """One step of one host, with its rows of the batch."""
        replica = tf.distribute.get_replica_context()
        with kerasrnn.recurrence.compiled(), tf.GradientTape() as tape:
            loss = tf.reduce_sum((model(x, training=True) - y) ** 2) / arguments.batch
        gradients = tape.gradient(loss, model.trainable_variables)
        loss, *gradients = replica.all_reduce(SUM, [loss, *gradients])
        # Of the whole batch: an optimizer's own clip would cut the part of each host.
        gradients, _ = tf.clip_by_global_norm(gradients, 1.0)
        # The optimizer sums what the hosts hand it.
        parts = [gradient / hosts for gradient in gradients]
        optimizer.apply_gradients(zip(parts, model.trainable_variables, strict=True))
        return loss

    @tf.function
    def step(x, y):
        return strategy.experimental_local_results(strategy.run(update, args=(x, y)))[0]

    @tf.function
    def total():
        def act():
            number = tf.identity(optimizer.iterations.value)
            return tf.distribute.get_replica_context().all_reduce(SUM, number)

        return strategy.experimental_local_results(strategy.run(act))[0]

    first = int(optimizer.iterations.numpy())
    if int(total()) != first * hosts:
        parser.error(f"--folder must be the same on all hosts: at step {first} here, not on others")
    for number in range(first, arguments.steps):
        x, y = kerasrnn.tasks.adding_problem(arguments.batch, 30, seed=number)
        mine = np.array_split(np.arange(arguments.batch), hosts)[host]
        loss = step(tf.constant(x[mine]), tf.constant(y[mine]))
        print(f"step {number} loss {float(loss):.6f}", flush=True)
        # The first host writes, for all have the same weights.
        if host == 0 and (number + 1) % arguments.save_every == 0:
            manager.save()


if __name__ == "__main__":
    main()
