"""Table 2 of the paper on synthetic people: what the location input (CI) and the full-frame loss (CS) are worth.

    python scripts/ablation.py [--seeds 3] [--steps 1000] [--output_dir model_zoo/ablation]

Trains the paper's three rows, and CI without CS, with the keypoint encoder (configs/cliff_keypoints.yaml, in fewer
steps), each seed with the same people and budget for all rows: with 3D labels for everybody; for a third of the people,
the others having 2D keypoints only, as most have in the paper's mixture; and, at one seed, without known focal lengths,
in training and at test. Scores each on the bundled held-out people in drawn poses. Writes ablation.json, table.md and
ablation.svg.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import PercentFormatter

from cliff_ms import cli, runtime
from cliff_ms.data.annotation_files import load_annotations, save_annotations
from cliff_ms.evaluation.protocols import find_protocol, load_bodies
from cliff_ms.io.files import atomic_path, claim_folder, prepare_output_dir
from cliff_ms.io.tables import markdown_table
from cliff_ms.weights.checkpoint import load_weights
from cliff_ms.weights.engine import load_network
from cliff_ms.zoo import HELD_OUT

ROOT = Path(__file__).resolve().parent.parent
ROWS = {  # name -> model.location_input, loss.full_frame
    "HMR (no CI, no CS)": (False, False),
    "CLIFF without CI": (False, True),
    "CLIFF without CS": (True, False),
    "CLIFF": (True, True),
}
LABELS = {  # name -> title, settings of the training, seeds if not all
    "all": ("3D labels for everybody", {}, None),
    "third": ("3D labels for a third, 2D keypoints for everybody", {"data.labelled": 1 / 3}, None),
    "estimated": ("3D labels for everybody, focal lengths estimated from the image size",
                  {"data.focal_length": "estimated"}, 1),
}  # fmt: skip
METRICS = {
    "mpjpe_mm": "MPJPE (mm)",
    "pa_mpjpe_mm": "PA-MPJPE (mm)",
    "pve_mm": "PVE (mm)",
    "global_rotation_deg": "global rotation (deg)",
}
BINS = 5  # of equal counts, from the image's centre outwards


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each row")
    parser.add_argument("--steps", type=int, default=1000, help="of each training, of 256 people each")
    parser.add_argument("--work_dir", type=Path, default=Path("outputs/ablation"), help="for the trainings")
    parser.add_argument("--output_dir", type=Path, default=ROOT / "model_zoo" / "ablation", help="for table and plot")
    return parser.parse_args()


def main() -> int:
    """Train, score, write."""
    args = parse_args()
    prepare_output_dir(args.output_dir)
    claim_folder(prepare_output_dir(args.work_dir), {"steps": args.steps})
    runs = [
        (labels, row, seed)
        for labels, (*_, seeds) in LABELS.items()
        for seed in range(seeds or args.seeds)
        for row in ROWS
    ]
    weights = {run: _train(args, *run) for run in runs}
    runtime.setup_device("CPU")
    scores = {run: _score(path, run[0]) for run, path in weights.items()}
    tables = {labels: _table(scores, labels) for labels in LABELS}
    curves = {labels: _curves(scores, labels) for labels in LABELS if labels != "estimated"}
    distances = _distances(next(iter(scores.values())))
    result = {
        "steps": args.steps,
        "seeds": args.seeds,
        "tables": tables,
        "distance": distances.tolist(),
        "global_rotation_deg by distance": {
            labels: {row: curve.tolist() for row, curve in each.items()} for labels, each in curves.items()
        },
    }
    with atomic_path(args.output_dir / "ablation.json") as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    _plot(args.output_dir / "ablation.svg", distances, curves)
    text = "\n".join(f"{LABELS[labels][0]}:\n\n{_markdown(table)}\n" for labels, table in tables.items())
    with atomic_path(args.output_dir / "table.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text)
    return 0


def _train(args: argparse.Namespace, labels: str, row: str, seed: int) -> Path:
    """Train one row, or go on with it; returns the final weights."""
    location_input, full_frame = ROWS[row]
    name = f"{labels}_{int(location_input)}{int(full_frame)}_{seed}"
    final = args.work_dir / name / "checkpoints" / "final.ckpt"
    if not final.is_file():
        resume = ["--resume"] if (args.work_dir / name / "config.yaml").is_file() else []
        settings = {
            "model.location_input": location_input,
            "loss.full_frame": full_frame,
            "data.batch_size": 256,
            "train.steps": args.steps,
            "train.learning_rate": 7e-4,
            "train.lr_drops": [0.7, 0.9],
            "train.lr_anneal": 0.0,
            "train.seed": seed,
            "train.val_every": 0,
            "train.picture_every": 0,
            **LABELS[labels][1],
        }
        command = [sys.executable, "train.py", "--config", "configs/cliff_keypoints.yaml", "--device_target", "CPU"]
        command += ["--output_dir", str(args.work_dir.resolve() / name), *resume, "--set"]
        subprocess.run(
            [*command, *(f"{key}={json.dumps(value)}" for key, value in settings.items())], cwd=ROOT, check=True
        )
    return final


def _score(ckpt: Path, labels: str) -> "Scores":  # noqa: F821  imports MindSpore, after the device is chosen
    """Errors of each held-out person."""
    from cliff_ms.evaluation.rows import open_rows
    from cliff_ms.evaluation.scoring import Evaluator

    protocol = find_protocol("synthetic", None)
    weights = load_weights(ckpt)
    network, batch_size = load_network(weights, "mindspore", 32)
    people = load_annotations(HELD_OUT / "annotations.npz")
    if labels == "estimated":
        people = replace(people, focal_length=np.full_like(people.focal_length, np.nan))
    with tempfile.TemporaryDirectory() as folder:
        annotations = Path(folder) / "people.npz"
        save_annotations(annotations, people)
        data, _ = open_rows(protocol, annotations, None, weights.meaning.model, batch_size)
        return Evaluator(protocol, load_bodies(protocol, data.gender, None, None))(network, data)


def _table(scores: dict, labels: str) -> dict[str, dict[str, list[float]]]:
    """Row -> metric -> mean and standard deviation over the seeds."""
    table = {}
    for row in ROWS:
        runs = [s.errors for (which, r, _), s in scores.items() if (which, r) == (labels, row)]
        means = {key: [float(errors[key].mean()) for errors in runs] for key in METRICS}
        table[row] = {
            key: [float(np.mean(v)), float(np.std(v, ddof=1)) if len(v) > 1 else 0.0] for key, v in means.items()
        }
    return table


def _markdown(table: dict[str, dict[str, list[float]]]) -> str:
    rows = []
    for row, metrics in table.items():
        cells = [f"{mean:.1f} ± {spread:.1f}" if spread else f"{mean:.1f}" for mean, spread in metrics.values()]
        rows.append({"": row, **dict(zip(METRICS.values(), cells, strict=True))})
    return "\n".join(markdown_table(rows))


def _bins(distance: np.ndarray) -> list[np.ndarray]:
    """Which people are in each bin."""
    return np.array_split(np.argsort(distance, kind="stable"), BINS)


def _distances(scores: "Scores") -> np.ndarray:  # noqa: F821
    """Mean distance (BINS,) of each bin."""
    return np.array([scores.distance[people].mean() for people in _bins(scores.distance)])


def _curves(scores: dict, labels: str) -> dict[str, np.ndarray]:
    """Row -> global rotation error (seeds, BINS)."""
    return {
        row: np.array(
            [
                [s.errors["global_rotation_deg"][people].mean() for people in _bins(s.distance)]
                for (which, r, _), s in scores.items()
                if (which, r) == (labels, row)
            ]
        )
        for row in ROWS
    }


def _plot(path: Path, distances: np.ndarray, curves: dict[str, dict[str, np.ndarray]]) -> None:
    figure, panels = plt.subplots(1, len(curves), figsize=(10, 4), layout="constrained", sharey=True)
    for axes, (labels, rows) in zip(panels, curves.items(), strict=True):
        for row, curve in rows.items():
            (line,) = axes.plot(distances, curve.mean(0), marker="o", label=row)
            axes.fill_between(distances, curve.min(0), curve.max(0), color=line.get_color(), alpha=0.15, linewidth=0)
        axes.set_title(LABELS[labels][0], fontsize=10)
        axes.set_xlabel("distance from the image centre (100 % = the corner)")
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("global rotation error (degrees)")
    panels[0].set_ylim(bottom=0)
    panels[0].legend(frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    cli.run(main)
