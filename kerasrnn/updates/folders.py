"""In which folder the files of a fit lie."""

import functools
import itertools
import re
import weakref


class Folders:
    """Keeps the files of different trainings apart, where one callback is told one place for all.

    That place belongs to one training: the first model with which the callback wrote there, and in
    another process the one of whoever makes the same callback again. Every fit of another model,
    and every fit of a copy, as keras-tuner makes one for each, has a new folder in it, named
    `fit-1` or with the first number that is higher than those that are there. So nothing of another
    training is taken up or replaced, not by a search either that goes on in another process, and
    several that search side by side do not meet.

    Args:
        copied: Whether it belongs to a copy.
    """

    def __init__(self, copied=False):
        self._copied = copied
        self._first = None

    def of_fit(self, model):
        """A function that gives the folder of the next fit of a model for the one that was told,
        always the same for the same one."""
        if self._copied or (self._first and self._first() is not model):
            return functools.cache(_new_folder)
        return lambda folder: folder

    def written(self, model):
        """To be called when there is something in the folder of a fit."""
        self._first = self._first or weakref.ref(model)


def of_copies(folder):
    """The folders of fits that are in a folder, in their order."""
    return [folder / f"fit-{number}" for number in sorted(_numbers(folder))]


def _numbers(folder):
    there = folder.iterdir() if folder.exists() else ()
    return [int(part.name[4:]) for part in there if re.fullmatch(r"fit-\d+", part.name)]


def _new_folder(folder):
    for number in itertools.count(max(_numbers(folder), default=0) + 1):
        new = folder / f"fit-{number}"
        try:
            new.mkdir(parents=True)
        except FileExistsError:
            # Another process was quicker.
            continue
        return new
