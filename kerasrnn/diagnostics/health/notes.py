"""What might mislead in a health report."""

from kerasrnn.diagnostics.health.findings import explodes, vanishes


def notes(measured):
    """Sentences on where the eigenvalues of a recurrent matrix alone mislead, from a `Measured`."""
    return [
        note
        for path, layer in measured.layers.items()
        if layer.lyapunov is not None and (note := _on_eigenvalues(path, layer))
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
