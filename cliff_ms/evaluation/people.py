"""Score everybody by themselves: means over people, groups and distances, as plain values and as tables."""

from collections.abc import Sequence

import numpy as np

from cliff_ms.body.files import Body
from cliff_ms.data.dataset import EvalDataset
from cliff_ms.evaluation.evaluate import EvalJob, Outcome
from cliff_ms.evaluation.refining import choose_refine
from cliff_ms.evaluation.scoring import Errors, Evaluator, Scores
from cliff_ms.evaluation.worst_cases import draw_worst
from cliff_ms.io.errors import InputError
from cliff_ms.weights.networks import Network

DISTANCE_BINS = 4
LABELS = {
    "mpjpe_mm": "MPJPE (mm)",
    "pa_mpjpe_mm": "PA-MPJPE (mm)",
    "pve_mm": "PVE (mm)",
    "pve_raw_mm": "PVE, pelvis not aligned (mm)",
    "global_rotation_deg": "global rotation (deg)",
    "pck_percent": "PCK at 150 mm (%)",
    "auc_percent": "AUC to 150 mm (%)",
    "accel_mm": "acceleration (mm/frame^2)",
}
ALWAYS = ("mpjpe_mm", "pa_mpjpe_mm", "pve_mm", "global_rotation_deg")  # null where they are not defined
_OF_A_BIN = ("mpjpe_mm", "global_rotation_deg")


def score_people(job: EvalJob, network: Network, data: EvalDataset, bodies: dict[str, Body]) -> Outcome:
    """Score a network on a data set whose rows are compared one by one.

    Args:
        job: What is evaluated.
        network: Its network.
        data: Its rows.
        bodies: What `load_bodies` returned.

    Returns:
        The numbers of `summarise`, their tables, and the picture of the worst people if it is asked for.

    Raises:
        InputError: A bad image, or none to draw over; weights that give no finite numbers; nothing to fit to.
    """
    if job.visualize and job.image_dir is None:
        raise InputError("The worst people are drawn over their pictures: name the folder with --image_dir.")
    evaluator = Evaluator(job.protocol, bodies, choose_refine(job, data, bodies["n"]))
    scores = evaluator(network, data)
    numbers, picture = summarise(scores, data.group), None
    if job.visualize:
        picture = draw_worst(network, evaluator, bodies["n"], data, scores.errors["mpjpe_mm"], job.visualize)
    return Outcome(numbers, tables(numbers), scores.seconds, picture)


def summarise(scores: Scores, group: np.ndarray | None) -> dict:
    """Means of the scores.

    Args:
        scores: Of N people.
        group: (N,) names that tables are broken down by, or None.

    Returns:
        `count` and the mean of each metric; with a constant pose in the scores also `mean_pose`, its means, and
        `by_distance`, a list of bins of equal counts from the image centre outwards; with groups also `groups` and
        `mean_over_groups`, the means of their means (HMR's on Human3.6M are over actions too, but of the means of its
        videos, not frames).
    """
    result = _means(scores.errors)
    if scores.mean_pose is not None:
        result["mean_pose"] = _means(scores.mean_pose)
        result["by_distance"] = _by_distance(scores)
    if group is not None:
        result["groups"] = {str(name): _means(scores.errors, group == name) for name in np.unique(group)}
        groups = result["groups"].values()
        result["mean_over_groups"] = {k: _mean([means[k] for means in groups]) for k in scores.errors}
    return result


def tables(numbers: dict) -> dict[str, list[dict[str, str]]]:
    """The numbers of `summarise` as tables: title -> rows, column -> text."""
    whole = [_row("", "network", numbers)]
    if "mean_pose" in numbers:
        whole.append(_row("", "constant mean pose", numbers["mean_pose"]))
    found = {"All": whole}
    if "by_distance" in numbers:
        bins = [(f"{b['from']:.2f} - {b['to']:.2f}", b) for b in numbers["by_distance"]]
        found["By distance from the image centre (1 = the corner)"] = [_row("distance", *b) for b in bins]
    if "groups" in numbers:
        mean = ("mean of the groups", {"count": numbers["count"], **numbers["mean_over_groups"]})
        found["By group"] = [_row("group", *g) for g in (*numbers["groups"].items(), mean)]
    return found


def _means(errors: Errors, chosen: np.ndarray | slice = slice(None)) -> dict:
    values = {name: _mean(array[chosen]) for name, array in errors.items()}
    return {
        "count": len(errors["mpjpe_mm"][chosen]),
        **{name: values.get(name) for name in ALWAYS},
        **{name: value for name, value in values.items() if name not in ALWAYS},
    }


def _mean(values: Sequence[float | None] | np.ndarray) -> float | None:
    """Of those that are known; None of none."""
    array = np.asarray(values, np.float64)
    known = array[~np.isnan(array)]
    return float(known.mean()) if len(known) else None


def _by_distance(scores: Scores) -> list[dict]:
    order = np.argsort(scores.distance, kind="stable")
    bins = []
    for people in np.array_split(order, min(DISTANCE_BINS, len(order))):
        means = _means(scores.errors, people)
        inside = scores.distance[people]
        bins.append(
            {
                "from": float(inside.min()),
                "to": float(inside.max()),
                "count": len(people),
                **{name: means[name] for name in _OF_A_BIN},
            }
        )
    return bins


def _row(head: str, name: str, means: dict) -> dict[str, str]:
    numbers = {label: f"{means[key]:.2f}" for key, label in LABELS.items() if means.get(key) is not None}
    return {head: name, "people": str(means["count"]), **numbers}
