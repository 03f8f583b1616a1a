"""What goes wrong in a training without ending it: steps that are skipped, and losses that jump."""

import math
from collections import deque
from collections.abc import Mapping

import numpy as np

from cliff_ms.io.errors import InputError

_SPIKE = 10.0  # times the median of the losses before
_REMEMBERED, _FEWEST = 100, 20  # losses before


class Watch:
    """Looks at each step of a training.

    Args:
        max_skipped: Steps in a row that may be skipped.
        skipped: Steps skipped before.
    """

    def __init__(self, max_skipped: int, skipped: int = 0) -> None:
        self._max_skipped = max_skipped
        self._skipped, self._in_a_row = skipped, 0
        self._losses: deque[float] = deque(maxlen=_REMEMBERED)

    def look(self, line: Mapping[str, float]) -> float | None:
        """Look at what `Trainer.run` gave of the next step.

        Returns:
            The median of the losses before, if this one is a spike: more than ten times as high, or not finite.

        Raises:
            InputError: Too many steps in a row were skipped; the message says what was not finite.
        """
        self._in_a_row = self._in_a_row + 1 if line["skipped"] > self._skipped else 0
        self._skipped = int(line["skipped"])
        if self._in_a_row >= self._max_skipped:
            terms = [name for name, value in line.items() if name != "grad_norm" and not math.isfinite(value)]
            what = f"the loss was ({', '.join(terms)})" if terms else "the gradients were, of a finite loss,"
            raise InputError(
                f"{self._in_a_row} steps in a row were skipped because {what} not finite: look at the labels with "
                "`prepare.py check`, lower train.learning_rate, or with fp16 let train.loss_scale be 0, which adapts."
            )
        usual = float(np.median(self._losses)) if len(self._losses) >= _FEWEST else math.inf
        loss = line["loss"]
        if math.isfinite(loss):
            self._losses.append(loss)
            return usual if loss > _SPIKE * usual else None
        return usual if math.isfinite(usual) else None
