"""The optimizer of a trial: its rule, its learning rate with a warm-up, its clip."""

import functools

import keras

OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "rmsprop": keras.optimizers.RMSprop,
    "sgd": functools.partial(keras.optimizers.SGD, momentum=0.9),
}
# Arguments of an optimizer. Of the three of Keras, a clip by value is no norm.
CLIPS = (None, "clipnorm", "global_clipnorm")


def optimizer(name, learning_rate, warmup_steps, clip, threshold):
    """An optimizer whose learning rate rises evenly over the first steps.

    Args:
        name: A key of `OPTIMIZERS`.
        learning_rate: Its rate after the warm-up.
        warmup_steps: The step that is the first with that rate; the one at k before it has k /
            `warmup_steps` of it. 0 and 1 are no warm-up.
        clip: One of `CLIPS`.
        threshold: Of the clip.
    """
    rate = learning_rate
    if warmup_steps > 1:
        rate = keras.optimizers.schedules.PolynomialDecay(
            learning_rate / warmup_steps, warmup_steps - 1, learning_rate, power=1.0
        )
    return OPTIMIZERS[name](rate, **({clip: threshold} if clip else {}))
