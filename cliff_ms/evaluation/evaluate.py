"""Evaluate weights by a protocol: means over people, groups and distances, as plain values, tables and files."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cliff_ms.body.files import Body
from cliff_ms.evaluation.agora_run import run_agora
from cliff_ms.evaluation.protocols import Protocol, load_bodies
from cliff_ms.evaluation.scoring import Errors, EvalData, Evaluator, Scores, Seconds
from cliff_ms.evaluation.worst_cases import draw_worst
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import atomic_path
from cliff_ms.io.images import write_image
from cliff_ms.weights.checkpoint import Weights, WeightsMeta
from cliff_ms.weights.engine import load_network

DISTANCE_BINS = 4
_LABELS = {
    "mpjpe_mm": "MPJPE (mm)",
    "pa_mpjpe_mm": "PA-MPJPE (mm)",
    "pve_mm": "PVE (mm)",
    "pve_raw_mm": "PVE, pelvis not aligned (mm)",
    "global_rotation_deg": "global rotation (deg)",
    "pck_percent": "PCK at 150 mm (%)",
    "auc_percent": "AUC to 150 mm (%)",
}
_AGORA_LABELS = {
    "people": "people",
    "missed": "missed",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "mpjpe_mm": "MPJPE (mm)",
    "mve_mm": "MVE (mm)",
    "nmje_mm": "NMJE (mm)",
    "nmve_mm": "NMVE (mm)",
}
_ALWAYS = ("mpjpe_mm", "pa_mpjpe_mm", "pve_mm", "global_rotation_deg")  # null where they are not defined
_OF_A_BIN = ("mpjpe_mm", "global_rotation_deg")

log = logging.getLogger("cliff_ms")


@dataclass(frozen=True)
class Job:
    """What to evaluate, and on what.

    Attributes:
        protocol: How to score.
        weights: See `engine.load_network`.
        annotations: The standard npz.
        image_dir: Folder that its image names are relative to; None for a keypoint model without pictures.
        body: See `protocols.load_bodies`.
        body_dir: See `protocols.load_bodies`.
        keypoints: See `scoring.EvalData`.
        engine: See `engine.load_network`.
        batch_size: People that go through the network at once.
        agora_root: Folder of AGORA's dataframes; None to write the leaderboard's file only.
        agora_zip: The leaderboard's file to write, or None.
    """

    protocol: Protocol
    weights: Weights
    annotations: Path
    image_dir: Path | None = None
    body: Path | None = None
    body_dir: Path | None = None
    keypoints: str = "clean"
    engine: str = "mindspore"
    batch_size: int = 32
    agora_root: Path | None = None
    agora_zip: Path | None = None


def evaluate(job: Job, worst: int = 0) -> tuple[dict, np.ndarray | None]:
    """Score weights.

    Args:
        job: What to evaluate.
        worst: How many of the worst people to draw; needs the pictures.

    Returns:
        What the JSON holds: `dataset`, `protocol`, the numbers of `summarise`, for AGORA those of `evaluate_agora`,
        `left_out`, `seconds` and `settings`; and the picture of the worst people, (h, w, 3) uint8 RGB, or None.

    Raises:
        InputError: A file is missing, damaged or does not fit the others.
    """
    if worst and job.protocol.dataset == "agora":
        raise InputError("--visualize is not for agora, whose people are matched before they are scored: leave it out.")
    if worst and job.image_dir is None:
        raise InputError("The worst people are drawn over their pictures: name the folder with --image_dir.")
    meta = job.weights.meaning
    network, batch_size = load_network(job.weights, job.engine, job.batch_size)
    data = EvalData(job.protocol, job.annotations, job.image_dir, meta.model, batch_size, job.keypoints)
    bodies = load_bodies(job.protocol, data.gender, job.body, job.body_dir)
    body = bodies["n"]
    if meta.body != body.name:
        log.warning(
            "These weights speak the pose and shape of the body '%s', but are scored on '%s': poses carry over, shapes "
            "do not, and neither do the numbers.",
            meta.body,
            body.name,
        )
    picture = None
    if job.protocol.dataset == "agora":
        numbers, seconds = run_agora(network, data, body, job.body_dir, job.agora_root, job.agora_zip)
    else:
        evaluator = Evaluator(job.protocol, bodies)
        scores = evaluator(network, data)
        numbers, seconds = summarise(scores, data.group), scores.seconds
        if worst:
            picture = draw_worst(network, evaluator, body, data, scores.errors["mpjpe_mm"], worst)
    return _report(job, numbers, seconds, data, meta, body), picture


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
        result["mean_over_groups"] = {k: float(np.mean([means[k] for means in groups])) for k in scores.errors}
    return result


def tables(result: dict) -> dict[str, list[dict[str, str]]]:
    """The numbers of `evaluate` as tables: title -> rows, column -> text."""
    if "kid_people" in result:
        return {"All": [_agora_row("all", "", result), _agora_row("kids", "kid_", result)]}
    whole = [_row("", "network", result)]
    if "mean_pose" in result:
        whole.append(_row("", "constant mean pose", result["mean_pose"]))
    found = {"All": whole}
    if "by_distance" in result:
        bins = [(f"{b['from']:.2f} - {b['to']:.2f}", b) for b in result["by_distance"]]
        found["By distance from the image centre (1 = the corner)"] = [_row("distance", *b) for b in bins]
    if "groups" in result:
        mean = ("mean of the groups", {"count": result["count"], **result["mean_over_groups"]})
        found["By group"] = [_row("group", *g) for g in (*result["groups"].items(), mean)]
    return found


def write_report(path: Path, result: dict, picture: np.ndarray | None) -> list[Path]:
    """Write a result as JSON, its tables as Markdown and the picture as JPEG beside it.

    Args:
        path: The JSON file.
        result: What `evaluate` returned.
        picture: The same.

    Returns:
        The files.

    Raises:
        InputError: If the folder cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    lines = [f"# {result['dataset']}, protocol {result['protocol']}"]
    for title, rows in tables(result).items():
        lines += ["", f"## {title}", "", _line(rows[0]), _line("---" for _ in rows[0])]
        lines += [_line(row.values()) for row in rows]
    lines += ["", "## Settings", ""] + [f"- {name}: {value}" for name, value in result["settings"].items()]
    lines += [f"- {count} rows left out: {reason}" for reason, count in result["left_out"].items()]
    with atomic_path(path.with_suffix(".md")) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if picture is None:
        return [path, path.with_suffix(".md")]
    write_image(path.with_suffix(".jpg"), picture)
    return [path, path.with_suffix(".md"), path.with_suffix(".jpg")]


def _report(job: Job, numbers: dict, seconds: Seconds, data: EvalData, meta: WeightsMeta, body: Body) -> dict:
    """The numbers with what they depend on."""
    return {
        "dataset": job.protocol.dataset,
        "protocol": job.protocol.name,
        **numbers,
        "left_out": data.left_out,
        "seconds": {"network": seconds.network, "outside": seconds.outside},
        "settings": {
            "source of the protocol": job.protocol.source,
            "joints": ", ".join(job.protocol.joints),
            "root": " and ".join(job.protocol.root),
            "truth": job.protocol.truth,
            "vertices predicted on": job.protocol.pve or "not scored",
            "focal lengths": _focal_lengths(job.protocol, data),
            "annotations": str(job.annotations),
            "weights": str(job.weights.path),
            "origin of the weights": meta.origin,
            "body of the weights": meta.body,
            "body": body.name,
            "keypoints": job.keypoints if meta.model.reads_keypoints else "none, pixels",
            "engine": job.engine,
            "batch size": data.batch_size,
        },
    }


def _focal_lengths(protocol: Protocol, data: EvalData) -> str:
    known = np.isfinite(data.annotations.focal_length[data.rows])
    if protocol.focal == "estimated" or not known.any():
        return "estimated from the image size"
    return "as annotated" if known.all() else f"as annotated; {(~known).sum()} of {len(known)} estimated"


def _means(errors: Errors, chosen: np.ndarray | slice = slice(None)) -> dict:
    values = {name: float(array[chosen].mean()) for name, array in errors.items()}
    return {
        "count": len(errors["mpjpe_mm"][chosen]),
        **{name: values.get(name) for name in _ALWAYS},
        **{name: value for name, value in values.items() if name not in _ALWAYS},
    }


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
    numbers = {label: f"{means[key]:.2f}" for key, label in _LABELS.items() if means.get(key) is not None}
    return {head: name, "people": str(means["count"]), **numbers}


def _agora_row(name: str, prefix: str, result: dict) -> dict[str, str]:
    values = {label: result[prefix + key] for key, label in _AGORA_LABELS.items()}
    return {"": name, **{label: "-" if value is None else str(value) for label, value in values.items()}}


def _line(cells: object) -> str:
    return "| " + " | ".join(cells) + " |"
