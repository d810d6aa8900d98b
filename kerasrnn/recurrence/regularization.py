"""Vanishing gradient regularization: a preference for weights that carry the gradient back in time
neither shrunk nor grown.

    Ω = Σ_t Ω_t,    Ω_t = ( ‖∂J/∂s_t ∂s_t/∂s_{t-1}‖ / ‖∂J/∂s_t‖ - 1 )²

J is the loss and s_t are all states of the cell side by side. A sample of the batch has an Ω of its
own, and their mean counts. A step that no gradient comes back to, as a masked one, adds nothing;
nor does one that begins an episode, since its gradient goes no further.

Only the immediate derivative ∂⁺Ω/∂U is taken, at little more than the cost of a further step:
∂J/∂s_t and all values of the forward pass are constants. What is left of U is the matrix that a
gradient is multiplied by on the way back through a product; peepholes and gains are constants, too.

Source: Pascanu, Mikolov & Bengio (2013), section 3.3, equation 9. Equation 10 and the authors'
program (github.com/pascanur/trainingRNNs) square both norms, and the program takes the mean over
the steps in the place of the sum.
"""

import keras
import tensorflow as tf


def regularizer(cell, noise):
    """What adds λ ∂⁺Ω_t/∂U to the gradient of U at each step of a pass.

    Args:
        cell: A `Cell` with a recurrent kernel U.
        noise: The pass's `Noise`.

    Returns:
        `regularized(x, zones, reset, states, new)`, which gives the new states of a step so that
        their gradient does that. It takes the step's projected input, its part of the zones, where
        episodes begin, (batch, 1) booleans or `None`, and the states before and after it, each
        (batch, units).
    """
    weight = _weight_of(cell)
    # On the way back through a loop nothing can be read but tensors that went into it.
    held = [(w, tf.convert_to_tensor(w.value)) for w in cell.weights]
    (u,) = (value for variable, value in held if variable is cell.recurrent_kernel)

    def regularized(x, zones, reset, states, new):
        @tf.custom_gradient
        def passed_on(u, *new):
            def gradient(*d_new):
                d = d_new
                if reset is not None:
                    d = [tf.where(reset, tf.zeros_like(d), d) for d in d_new]
                d_u = _immediate_derivative(cell, held, u, x, zones, noise, states, d)
                return tf.cast(weight, d_u.dtype) * d_u, *d_new

            return [tf.identity(s) for s in new], gradient

        return passed_on(u, *new)

    return regularized


def _weight_of(cell):
    """λ, on the scale of the loss whose gradient is taken: one replica's part, times what the
    optimizer of the model in training multiplies the loss by."""
    # As Keras does with the penalties of weights: the gradients of the replicas are summed.
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    model = cell._get_call_context().entry_layer
    # Where no layer was called, asking has opened a context.
    cell._maybe_reset_call_context()
    optimizer = getattr(model, "optimizer", None)
    weight = cell.vanishing_gradient_regularization / replicas
    return optimizer.scale_loss(weight) if optimizer else weight


def _immediate_derivative(cell, held, u, x, zones, noise, states, d_new):
    u, states = tf.identity(u), [tf.identity(s) for s in states]
    d_new = _directions(d_new)
    weights = keras.StatelessScope(state_mapping=[*held, (cell.recurrent_kernel, u)])

    def product(gates, v):
        """U v, which depends on v alone, but for the derivative with respect to v."""
        value = cell.product(gates, v, noise.products)
        change = cell.product(gates, v - tf.stop_gradient(v), noise.products)
        return tf.stop_gradient(value - change) + change

    with tf.GradientTape(watch_accessed_variables=False) as of_u:
        of_u.watch(u)
        with tf.GradientTape(watch_accessed_variables=False) as of_states, weights:
            of_states.watch(states)
            new = cell.advance(x, states, product, zones, noise.candidate)
        d_states = of_states.gradient(
            new, states, output_gradients=d_new, unconnected_gradients="zero"
        )
        omega = (_norms(d_states) - 1) ** 2
        samples = tf.cast(tf.shape(omega)[0], omega.dtype)
        omega = tf.math.divide_no_nan(tf.reduce_sum(omega), samples)
    return of_u.gradient(omega, u, unconnected_gradients="zero")


def _directions(gradients):
    """The gradients with each sample's norm made 1, or 0 where there is no gradient."""
    # Squares of small numbers would be none.
    largest = tf.reduce_max([tf.reduce_max(tf.abs(g), -1, keepdims=True) for g in gradients], 0)
    scaled = [tf.math.divide_no_nan(g, largest) for g in gradients]
    norms = tf.cast(_norms(scaled)[:, None], largest.dtype)
    return [tf.math.divide_no_nan(g, norms) for g in scaled]


def _norms(parts):
    """The norm of each sample, (batch,), over all parts; 0 has the gradient 0."""
    wide = [tf.cast(p, tf.float64 if p.dtype == tf.float64 else tf.float32) for p in parts]
    squares = tf.add_n([tf.reduce_sum(p * p, -1) for p in wide])
    some = squares > 0
    return tf.where(some, tf.sqrt(tf.where(some, squares, 1)), 0)
