"""Layers that get no gradient."""

from kerasrnn.diagnostics.health import advice
from kerasrnn.diagnostics.health.verdict import Verdict, severity


@severity("sick")
def dead(measured):
    """No weight of a layer gets a gradient."""
    reach, paths = measured.reach, dead_layers(measured)
    starved = [path for path, of_layer in reach.items() if of_layer.starved]
    others = [path for path in starved if path not in paths]
    cut_off = f"; nor do those behind it get any: {', '.join(others)}" if others else ""
    verdicts = []
    for path in paths:
        why, steps = _why_dead(measured, path)
        numbers = {"variables": len(reach[path].gradients), "layers_without_gradient": len(starved)}
        meaning = f"{path} is dead: {why}{cut_off}."
        verdicts.append(Verdict.of("DEAD", path, numbers, meaning, steps))
    return verdicts


# Weights that training has blown up: none that are initialized, or learned, come near it.
_BLOWN_UP = 1e3


def _why_dead(measured, path):
    """Why no gradient gets to a layer, and what to do."""
    reach, settings = measured.reach, measured.settings
    largest = max(reach, key=lambda one: reach[one].weights)
    if reach[largest].weights > _BLOWN_UP:
        why = (
            f"the weights have blown up, those of {largest} to {reach[largest].weights:.3g}, and "
            "with numbers of that size its activations are flat"
        )
        return why, advice.of_weights_blown_up(measured)
    if reach[path].silent:
        of = "the only sample of `x`" if measured.samples == 1 else "all of `x`"
        why = f"every one of its outputs is zero for {of}, so that its weights get no gradient"
        return why, advice.of_dead_silence(measured, path)
    zero = next((one for one, of_layer in reach.items() if of_layer.zero), None)
    if zero:
        why = f"no gradient comes back to it, for the weights of {zero} are zero"
        return why, advice.of_weights_of_zero(zero)
    flat = next((one for one, of_layer in reach.items() if of_layer.flat), None)
    if flat:
        why = f"no gradient comes back to it, for all outputs of {flat} lie where it is flat"
        return why, advice.of_a_flat_activation(flat, settings)
    why = "no gradient comes back to it, so that its weights never change"
    return why, advice.of_a_cut_way(settings)


def dead_layers(measured):
    """The layers without a gradient that give nothing but zeros; where none does, all of them."""
    starved = {path: of_layer for path, of_layer in measured.reach.items() if of_layer.starved}
    return [path for path, of_layer in starved.items() if of_layer.silent] or list(starved)
