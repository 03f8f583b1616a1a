"""Evaluate weights by a protocol: what is evaluated, what comes of it, and the files it is written to."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cliff_ms.body.files import Body
from cliff_ms.data.dataset import EvalDataset
from cliff_ms.evaluation.protocols import Protocol, load_bodies
from cliff_ms.evaluation.rows import open_rows
from cliff_ms.evaluation.scoring import Seconds
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import atomic_path
from cliff_ms.io.images import write_image
from cliff_ms.io.tables import markdown_table
from cliff_ms.weights.checkpoint import Weights, WeightsMeta
from cliff_ms.weights.engine import load_network

Tables = dict[str, list[dict[str, str]]]  # title -> rows, column -> text

log = logging.getLogger("cliff_ms")


@dataclass(frozen=True)
class EvalJob:
    """What to evaluate, and on what.

    Attributes:
        protocol: How to score.
        weights: See `engine.load_network`.
        annotations: The standard npz.
        image_dir: Folder that its image names are relative to; None for a keypoint model without pictures.
        body: See `protocols.load_bodies`.
        body_dir: See `protocols.load_bodies`.
        keypoints: See `rows.open_rows`.
        engine: See `engine.load_network`.
        batch_size: People that go through the network at once.
        visualize: How many of the worst people to draw; needs the pictures.
        agora_root: Folder of AGORA's dataframes; None to write the leaderboard's file only.
        agora_zip: The leaderboard's file to write, or None.
        fit: `inference.fit.Fit` itself, which is made for the data's keypoints and moves what is predicted onto them
            before it is scored; None to score what the network predicts.
    """

    protocol: Protocol
    weights: Weights
    annotations: Path
    image_dir: Path | None = None
    body: Path | None = None
    body_dir: Path | None = None
    keypoints: str = "clean"
    engine: str = "auto"
    batch_size: int = 32
    visualize: int = 0
    agora_root: Path | None = None
    agora_zip: Path | None = None
    fit: Callable[..., Callable] | None = None


@dataclass(frozen=True, eq=False)
class Outcome:
    """What the scorer of a protocol found, see `Protocol.score`.

    Attributes:
        numbers: `count`, `mpjpe_mm`, `pa_mpjpe_mm`, `pve_mm` and `global_rotation_deg`, None where not defined, and
            what the protocol adds; plain values.
        tables: The same for people to read.
        seconds: Where the time went.
        picture: The worst people, (h, w, 3) uint8 RGB, or None.
    """

    numbers: dict
    tables: Tables
    seconds: Seconds
    picture: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What an evaluation came to.

    Attributes:
        values: What the JSON holds: `dataset`, `protocol`, the numbers of the scorer, `left_out`, `seconds` and
            `settings`.
        tables: See `Outcome`.
        picture: See `Outcome`.
    """

    values: dict
    tables: Tables
    picture: np.ndarray | None


def evaluate(job: EvalJob) -> Evaluation:
    """Score weights.

    Args:
        job: What to evaluate.

    Returns:
        Its result.

    Raises:
        InputError: A file is missing, damaged or does not fit the others.
    """
    meta = job.weights.meaning
    if job.keypoints != "clean" and job.fit is None and not meta.model.reads_keypoints:
        raise InputError(f"--keypoints {job.keypoints} is for keypoint models or --fit; these weights read pixels.")
    network, batch_size = load_network(job.weights, job.engine, job.batch_size)
    data, left_out = open_rows(job.protocol, job.annotations, job.image_dir, meta.model, batch_size, job.keypoints)
    bodies = load_bodies(job.protocol, data.gender, job.body, job.body_dir)
    body = bodies["n"]
    if meta.body != body.name:
        log.warning(
            "These weights predict pose and shape of the body model '%s', but are scored on '%s': poses carry over, "
            "shapes do not, and neither do the numbers.",
            meta.body,
            body.name,
        )
    missing = job.protocol.people - len(data.annotations)
    if missing > 0:
        left_out["not in the file"] = missing
        log.warning(
            "%s holds %d of the %d people of the test set: the score is that of a part",
            job.annotations, len(data.annotations), job.protocol.people,
        )  # fmt: skip
    outcome = job.protocol.score(job, network, data, bodies)
    values = {
        "dataset": job.protocol.dataset,
        "protocol": job.protocol.name,
        **outcome.numbers,
        "left_out": left_out,
        "seconds": {"network": outcome.seconds.network, "outside": outcome.seconds.outside},
        "settings": _settings(job, data, meta, body),
    }
    return Evaluation(values, outcome.tables, outcome.picture)


def write_report(path: Path, result: Evaluation) -> list[Path]:
    """Write a result as JSON, its tables as Markdown and the picture as JPEG beside it.

    Args:
        path: The JSON file.
        result: What `evaluate` returned.

    Returns:
        The files.

    Raises:
        InputError: If the folder cannot be written.
    """
    values = result.values
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    lines = [f"# {values['dataset']}, protocol {values['protocol']}"]
    for title, rows in result.tables.items():
        lines += ["", f"## {title}", "", *markdown_table(rows)]
    lines += ["", "## Settings", ""] + [f"- {name}: {_as_text(value)}" for name, value in values["settings"].items()]
    lines += [f"- {count} rows left out: {reason}" for reason, count in values["left_out"].items()]
    with atomic_path(path.with_suffix(".md")) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if result.picture is None:
        return [path, path.with_suffix(".md")]
    write_image(path.with_suffix(".jpg"), result.picture)
    return [path, path.with_suffix(".md"), path.with_suffix(".jpg")]


def _settings(job: EvalJob, data: EvalDataset, meta: WeightsMeta, body: Body) -> dict[str, object]:
    """What the numbers depend on."""
    reads_keypoints, fitted = meta.model.reads_keypoints, job.fit is not None
    return {
        "source of the protocol": job.protocol.source,
        "joints": ", ".join(job.protocol.joints),
        "root": " and ".join(job.protocol.root),
        "truth": job.protocol.truth,
        "vertices predicted on": job.protocol.pve or "not scored",
        "focal lengths": _focal_lengths(data),
        "annotations": str(job.annotations),
        "weights": str(job.weights.path),
        "origin of the weights": meta.origin,
        "body of the weights": meta.body,
        "body": body.name,
        "keypoints": job.keypoints if reads_keypoints or fitted else "none, pixels",
        "fit": fitted,
        "engine": job.engine,
        "batch size": data.batch_size,
    }


def _as_text(setting: object) -> str:
    return ("yes" if setting else "no") if isinstance(setting, bool) else str(setting)


def _focal_lengths(data: EvalDataset) -> str:
    known = np.isfinite(data.annotations.focal_length[data.rows])
    if not known.any():
        return "estimated from the image size"
    return "as annotated" if known.all() else f"as annotated; {(~known).sum()} of {len(known)} estimated"
