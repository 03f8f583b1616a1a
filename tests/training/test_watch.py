"""What goes wrong in a training is noticed: skipped steps, spikes of the loss."""

import math

import pytest

from cliff_ms.io.errors import InputError
from cliff_ms.training.watch import Watch


def line(loss=1.0, skipped=0, **terms):
    return {"loss": loss, "pose": loss, **terms, "grad_norm": 1.0, "lr": 1e-4, "skipped": skipped}


def test_spikes_are_seen_once_losses_are_known():
    watch = Watch(max_skipped=20)
    assert [watch.look(line(100.0 if k == 5 else 1.0)) for k in range(30)] == [None] * 30
    assert watch.look(line(9.9)) is None and watch.look(line(10.1)) == 1.0
    assert watch.look(line(math.nan, skipped=1)) == 1.0 and watch.look(line(1.0, skipped=1)) is None


def test_steps_that_are_skipped_in_a_row_end_the_training():
    watch = Watch(max_skipped=3, skipped=7)
    for skipped in (8, 9, 9, 10, 11):  # a good one between them
        watch.look(line(skipped=skipped))
    with pytest.raises(
        InputError, match="3 steps in a row were skipped because the gradients were, of a finite loss, not finite"
    ):
        watch.look(line(skipped=12))
    with pytest.raises(InputError, match=r"because the loss was \(loss, pose\) not finite: look at the labels"):
        watch.look(line(math.inf, skipped=13))
