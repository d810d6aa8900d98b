"""Learning rates that a callback cuts."""

import keras


@keras.saving.register_keras_serializable("kerasrnn")
class ScaledSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning-rate schedule times a factor.

    Args:
        schedule: A `LearningRateSchedule`.
        factor: A float.

    Example:

    >>> halved = kerasrnn.updates.scaled_schedule.ScaledSchedule(
    ...     keras.optimizers.schedules.CosineDecay(0.1, decay_steps=10), 0.5
    ... )
    >>> float(halved(0))
    0.05000000074505806
    """

    def __init__(self, schedule, factor):
        self.schedule = schedule
        self.factor = factor

    def __call__(self, step):
        return self.factor * self.schedule(step)

    def get_config(self):
        return {
            "schedule": keras.optimizers.schedules.serialize(self.schedule),
            "factor": self.factor,
        }

    @classmethod
    def from_config(cls, config):
        return cls(keras.optimizers.schedules.deserialize(config["schedule"]), config["factor"])


def lowered(rate, factor):
    """A learning rate times a factor: a schedule as a `ScaledSchedule`, a variable as its value; a
    function of the user's, which cannot be cut, as it is."""
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        return ScaledSchedule(rate, factor)
    return factor * rate.numpy() if isinstance(rate, keras.Variable) else rate
