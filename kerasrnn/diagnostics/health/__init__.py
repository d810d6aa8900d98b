"""One page on how a model fares: what is wrong, what it means, what to change.

What was measured (`measured`, `cause`) goes through the checks (`findings`, `checks`), each of
which gives its verdicts (`verdict`), into a report (`report`), shown as text or as a page (`page`).
"""
