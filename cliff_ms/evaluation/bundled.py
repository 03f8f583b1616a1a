"""The bundled people, in drawn and in recorded poses, as predicted and as fitted, in one table."""

import dataclasses
import itertools
from collections.abc import Callable

from cliff_ms.evaluation.evaluate import EvalJob, Evaluation, evaluate
from cliff_ms.evaluation.people import ALWAYS, LABELS
from cliff_ms.io.tables import cell
from cliff_ms.zoo import HELD_OUT, HELD_OUT_RECORDED

_SETS = {"drawn": HELD_OUT, "recorded": HELD_OUT_RECORDED}


def with_all_bundled(job: EvalJob, result: Evaluation, fit: Callable[..., Callable]) -> Evaluation:
    """Add the scores of all bundled people to those of some.

    Args:
        job: The evaluation of one set, fitted or not.
        result: What it came to.
        fit: See `EvalJob.fit`.

    Returns:
        The same with one more table, and its rows under `bundled_people`.

    Raises:
        InputError: What `evaluate` raises.
    """
    rows = []
    for (poses, folder), chosen in itertools.product(_SETS.items(), (None, fit)):
        same = folder == job.image_dir and chosen == job.fit
        other = dataclasses.replace(
            job, annotations=folder / "annotations.npz", image_dir=folder, fit=chosen, visualize=0
        )
        values = (result if same else evaluate(other)).values
        rows.append({"poses": poses, "fit": chosen is not None, **{key: values[key] for key in ("count", *ALWAYS)}})
    table = [
        {
            "poses": row["poses"],
            "bodies": "fitted" if row["fit"] else "predicted",
            "people": str(row["count"]),
            **{LABELS[key]: cell(row[key]) for key in ALWAYS},
        }
        for row in rows
    ]
    title = f"All bundled people, keypoints '{job.keypoints}'"
    return dataclasses.replace(
        result, values=result.values | {"bundled_people": rows}, tables=result.tables | {title: table}
    )
