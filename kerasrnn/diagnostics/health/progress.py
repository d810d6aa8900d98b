"""What has changed since an earlier report, what came of it, and what is left to try."""

import math

from kerasrnn.diagnostics.health.settings import RECURRENT
from kerasrnn.diagnostics.health.verdict import SEVERITIES, gravest


def check_same_task(settings, before):
    """Raises a `ValueError` unless the `Settings` of two reports are of one task: sequences may be
    of another length."""
    parts = (
        ("x", settings.inputs, before.inputs, settings.scale_of_inputs),
        ("y", settings.targets, before.targets, settings.scale_of_targets),
    )
    for name, now, then, scale in parts:
        # Tokens have no axis but time.
        if [_without_time(s, scale) for s in now] != [_without_time(s, scale) for s in then]:
            raise ValueError(
                f"`previous` must be the report on a model of the same task: its `{name}` had the "
                f"shape {_written(then)} without the batch. Received: {name} of {_written(now)}"
            )


def _without_time(shape, scale):
    return len(shape), shape[1:] if len(shape) > 1 or scale is None else shape


def _written(shapes):
    return " and ".join(map(str, shapes)) or "no array"


# By so much the root mean square of two batches of the same data may differ.
_OF_BATCHES = 0.2


def known_rates(previous, settings):
    """The highest learning rate that the reports so far found too low, and the lowest they found
    too high: none once the optimizer or the scale of inputs or targets is another."""
    before = previous.settings
    if settings.optimizer != before.optimizer or not (
        _same_scale(settings.scale_of_inputs, before.scale_of_inputs)
        and _same_scale(settings.scale_of_targets, before.scale_of_targets)
    ):
        return 0.0, math.inf
    low, high = previous.rates
    for verdict in previous.verdicts:
        rate = verdict.numbers.get("rate")
        if verdict.code == "LEARNING_RATE" and rate:
            if verdict.numbers["too"] == "high":
                high = min(high, rate)
            else:
                low = max(low, rate)
    return low, high


def _same_scale(now, then):
    if now is None or then is None:
        return now is then
    return math.isclose(now, then, rel_tol=_OF_BATCHES)


def escalated(verdicts, settings, previous):
    """The verdicts with the steps that were tried without success behind the others.

    Args:
        verdicts: The new ones.
        settings: The `Settings` now.
        previous: The earlier `HealthReport`.

    Returns:
        The list of verdicts, and what was tried against each by its place: a dictionary of tuples.
    """
    # Of two in one place the first, which is the one the summary may name.
    then = {_place(v, previous.settings): v for v in reversed(previous.verdicts)}
    worst = gravest(previous.verdicts)
    result, tried = [], dict(previous.tried)
    for verdict in verdicts:
        place = _place(verdict, settings)
        before = then.get(place)
        if before and before.remedy:
            # Where no setting shows it, a user who asks again is believed to have taken the one
            # step that the summary named.
            followed = _followed(before.remedy, place, settings, previous.settings)
            if before is worst if followed is None else followed:
                tried[place] = (*tried.get(place, ()), before.remedy.key)
        names = tried.get(place, ())
        # Of those that were tried, the one longest ago.
        steps = sorted(
            verdict.steps,
            key=lambda step: len(names) - names[::-1].index(step.key) if step.key in names else 0,
        )
        result.append(verdict.advised(steps))
    return result, tried


def since(verdicts, settings, loss, previous):
    """Sentences on what was changed since, and what came of it."""
    return [
        *_on_changes(settings, previous.settings),
        _on_loss(settings, loss, previous),
        *_on_verdicts(verdicts, settings, previous),
    ]


def _place(verdict, settings):
    """What a verdict is about, by the place of the layer, whose name may change."""
    return verdict.code, (settings.places or {}).get(verdict.layer, verdict.layer)


def _followed(step, place, settings, before):
    """Whether the setting that a step changes is another one, in the layer at that place where it
    is one of a recurrent layer; `None` where that is not known."""
    if step.setting is None:
        return None
    now, then = settings.by_name[step.setting], before.by_name[step.setting]
    _, layer = place
    if isinstance(now, tuple) and isinstance(layer, tuple) and layer[0] == RECURRENT:
        return now[layer[1]] != then[layer[1]]
    return _changed(now, then)


def _changed(now, then):
    """Whether a setting is another one; `None` where that is not known. Layers that are more or
    fewer are no change of what each has."""
    if now is None or then is None:
        return None
    if isinstance(now, tuple) and len(now) != len(then):
        return set(now) != set(then)
    return now != then


def _on_changes(settings, before):
    now, then = settings.by_name, before.by_name
    changed = [
        f"{name} {_said(then[name])} → {_said(now[name])}"
        for name in now
        if _changed(now[name], then[name]) and _said(now[name]) != _said(then[name])
    ]
    if changed:
        yield f"Changed: {'; '.join(changed)}."
    elif len(settings.layers or {}) == len(before.layers or {}):
        yield "Nothing was changed that the report knows of."


def _said(value):
    if isinstance(value, tuple):
        return ", ".join(map(_said, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _on_loss(settings, loss, previous):
    if settings.loss != previous.settings.loss:
        return (
            f"The loss is another one, {settings.loss} and not {previous.settings.loss}: its "
            "values are not compared."
        )
    if any(verdict.code == "LOOKS_AHEAD" for verdict in previous.verdicts):
        return "The loss before was that of a model that saw what it predicts: it is not compared."
    if not _same_scale(settings.scale_of_targets, previous.settings.scale_of_targets):
        return "The targets are of another scale: the losses are not compared."
    then = previous.loss
    if not (math.isfinite(loss) and math.isfinite(then)):
        better = "better" if math.isfinite(loss) else "no better"
    else:
        same = f"{loss:.3g}" == f"{then:.3g}"
        better = "the same" if same else "better" if loss < then else "worse"
    return f"The loss at the batch went from {then:.3g} to {loss:.3g}: {better}."


def _on_verdicts(verdicts, settings, previous):
    ill, was = (
        {_place(v, s): v for v in some if v.severity != SEVERITIES[0]}
        for some, s in ((verdicts, settings), (previous.verdicts, previous.settings))
    )
    for words, places, source in (
        ("Gone", was.keys() - ill.keys(), was),
        ("New", ill.keys() - was.keys(), ill),
        ("Still there", was.keys() & ill.keys(), ill),
    ):
        if places:
            named = [v for place, v in source.items() if place in places]
            yield f"{words}: {', '.join(map(_where, named))}."
    layers, before = len(settings.layers or {}), len(previous.settings.layers or {})
    if layers != before:
        yield (
            f"It has {layers} recurrent layers and had {before}: verdicts on layers are compared "
            "by their order."
        )


def _where(verdict):
    return f"{verdict.words} in {verdict.layer}" if verdict.layer else verdict.words
