"""Stacks and connections, and their equations."""

from fuzzing import random_layers
from fuzzing.compare import (
    assert_same,
    results,
    set_precision,
    skip_where_refused,
    trainable_values,
)
from fuzzing.reference import layer_by_hand
from kerasrnn import layers
from kerasrnn.layers.states import state_sizes


def same_as_the_equations_of_a_stack(draw):
    """An `RNNStack`, by itself or in a Bidirectional, and its equations layer by layer: outputs,
    states, and the gradients by weights, input and initial states, with mask and reset, in an eager
    call, in a graph and compiled."""
    shape, dtype = _shape_and_dtype(draw)
    flags = draw.flags("return_sequences", "return_state", "go_backwards")
    inside = not flags["go_backwards"] and draw.flag("around", one_in=4)
    layer = random_layers.stack(draw, dtype, shape[-1], **flags)
    _compare(draw, layer, shape, dtype, inside)


def same_as_the_equations_of_a_connection(draw):
    """A `Residual`, `Highway` or `DenselyConnected` around layers of all kinds, by itself or in a
    Bidirectional, and its equations: what is compared for a stack."""
    shape, dtype = _shape_and_dtype(draw)
    fixed = {"return_state": True} if draw.flag("return_state") else {}
    layer = random_layers.connection(draw, dtype, shape[-1], **fixed)
    # Without which a Bidirectional does not take it.
    inside = hasattr(layer, "return_sequences") and draw.flag("around", one_in=3)
    _compare(draw, layer, shape, dtype, inside)


def _shape_and_dtype(draw):
    (batch, _, features), dtype = draw.shape(), draw.dtype(half=False)
    # Shorter than elsewhere: a stack is many layers.
    time = draw.choice("T", 1, 2, 3, 4)
    set_precision(dtype)
    return (batch, time, features), dtype


def _compare(draw, layer, shape, dtype, inside_bidirectional):
    batch, time, _ = shape
    if inside_bidirectional:
        merge_mode = draw.choice("around_mode", "concat", "sum", "mul", "ave", "gate")
        layer = layers.Bidirectional(layer, merge_mode=merge_mode, dtype=dtype)
    x = draw.normal(*shape, dtype=dtype)
    layer(x)
    draw.perturb(layer)
    arguments = {
        "x": x,
        "states": draw.initial_states(batch, state_sizes(layer), dtype),
        "mask": draw.mask(batch, time),
        "reset": draw.reset(batch, time),
    }
    mode = draw.choice("mode", *["eager"] * 16, "plain", "compiled")
    unknown = mode != "eager" and draw.flag("unknown")
    attached = arguments["mask"] is not None and draw.flag("attached_mask", one_in=3)

    def call(x, states=None, **more):
        if states is not None:
            more["initial_state"] = states
        if attached:
            x = random_layers.Attached(more.pop("mask"))(x)
        return layer(x, **more)

    def by_hand(x, states=None, mask=None, reset=None):
        states = None if states is None else list(states)
        y, final = layer_by_hand(layer, x, states, mask, reset)
        return [y, *final] if layer.return_state else [y]

    variables = trainable_values(layer)
    # A reset does not reach what is inside a model.
    with skip_where_refused("`reset` reaches layers of this package"):
        actual = results(call, variables, arguments, mode, unknown)
    assert_same(mode, actual, results(by_hand, variables, arguments), dtype)
