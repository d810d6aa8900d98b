"""Clips that cut too much, or nothing."""

from kerasrnn.diagnostics.health.advice import Advice, clip_by_norms
from kerasrnn.diagnostics.health.checks.learning_rate import too_high
from kerasrnn.diagnostics.health.verdict import Verdict, severity
from kerasrnn.updates.record import percent


@severity("attention")
def clip_too_tight(measured):
    """A clip with a fixed threshold cut more than half of the updates; in a net that has learned,
    or whose optimizer is not SGD and whose loss, under 90% of that of the best constant, still
    falls, that is a note."""
    record = measured.record
    if record is None or not record.finite.all() or not record.clips_too_often:
        return []
    if measured.learns:
        return []
    cut = f"cut {percent(record.fired)} of the updates"
    if too_high(measured, record):
        step = Advice(
            "Lower the learning rate first; then see whether the clip still fires that often.",
            "learning rate",
        )
        return [
            _of_clip("CLIP_TOO_TIGHT", record, f"{cut}, of a training that was not stable.", step)
        ]
    step = clip_by_norms(record, measured.settings)
    return [_of_clip("CLIP_TOO_TIGHT", record, f"{cut}.", step)]


@severity("healthy", alone=True)
def clip_idle(measured):
    """A clip cut none of the updates, and nothing else is wrong: harmless."""
    record = measured.record
    if record is None or record.clip is None or record.fired.any():
        return []
    if len(record) <= record.clip.rule.warmup:
        return []
    never = "never fired, so training ran as if without it."
    step = Advice("That does no harm; to have it cut the largest steps, lower it.", "clip")
    return [_of_clip("CLIP_IDLE", record, never, step)]


def _of_clip(code, record, meaning, step):
    numbers = {"clip_rate": record.clip_rate} | record.clip.numbers
    return Verdict.of(code, None, numbers, f"{record.clip} {meaning}", [step])
