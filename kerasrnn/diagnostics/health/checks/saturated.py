"""Gates that hardly learn."""

from kerasrnn.diagnostics.gates import HIGH, LOW
from kerasrnn.diagnostics.health import advice
from kerasrnn.diagnostics.health.verdict import Verdict, severity

# A gate is saturated if more of its values are.
_SATURATED = 0.5


@severity("attention")
def saturated(measured):
    """More than half of the values of a gate are under 0.0025 or over 0.9975, where the slope of a
    sigmoid is less than a hundredth of its largest, but for those by which a cell remembers."""
    of_layers = []
    for path, layer in measured.layers.items():
        if not layer.trainable:
            continue
        shares = {n: g.saturated for n, g in layer.gates.items() if g.saturated > _SATURATED}
        if not shares:
            continue
        listed = " and ".join(f"{s:.0%} of the values of {name}" for name, s in shares.items())
        meaning = (
            f"in {path} {listed} are under {LOW} or over {HIGH}, where a sigmoid is flat, so that "
            "the gate hardly learns."
        )
        steps = advice.of_saturated_gates(layer.settings, measured.settings)
        of_layers.append(Verdict.of("SATURATED", path, shares, meaning, steps))
    return of_layers
