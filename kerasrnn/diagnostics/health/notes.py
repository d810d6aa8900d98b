"""What a health report says beside its verdicts: what might mislead, and what trains slowly."""

from kerasrnn.diagnostics.health.findings import explodes, vanishes


def notes(measured):
    """Sentences on where the eigenvalues of a recurrent matrix alone mislead, and on layers that
    train step by step, from a `Measured`."""
    on_eigenvalues = [
        note
        for path, layer in measured.layers.items()
        if layer.lyapunov is not None and (note := _on_eigenvalues(path, layer))
    ]
    return on_eigenvalues + _on_slow_layers(measured.slow)


def _on_slow_layers(slow):
    """One sentence for all layers with the same reason."""
    layers = {}
    for path, reason in slow.items():
        layers.setdefault(reason, []).append(path)
    return [
        f"{', '.join(paths)} {'train' if paths[1:] else 'trains'} in the plain loop, one step "
        f"after the other: {reason}. `kerasrnn.recurrence.explain(model)` shows which way each "
        "layer goes."
        for reason, paths in layers.items()
    ]


def _on_eigenvalues(path, layer):
    by_radius, by_exponent = _trend(layer, layer.log_radius), _trend(layer, layer.lyapunov)
    if by_radius == by_exponent:
        return None
    return (
        f"the eigenvalues alone mislead about {path}. By its spectral radius, log ρ(W_h) = "
        f"{layer.log_radius:+.3f}, gradients would {by_radius} over {layer.steps} "
        f"steps. By its Lyapunov exponent, λ = {layer.lyapunov:+.3f} per step, which counts "
        f"what the activation does on the way, they {by_exponent}; the slope that was "
        f"measured is {layer.slope:+.3f}."
    )


def _trend(layer, per_step):
    if vanishes(layer, per_step):
        return "vanish"
    return "explode" if explodes(layer, per_step) else "neither vanish nor explode"
