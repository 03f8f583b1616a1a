"""Table 2 of the paper on synthetic people: what the location input (CI) and the full-frame loss (CS) are worth.

    python scripts/ablation.py [--seeds 3] [--steps 1000] [--output_dir model_zoo/ablation]

Trains the three rows with the keypoint encoder (configs/cliff_keypoints.yaml, in fewer steps), each seed
with the same data and budget for all rows; scores each on the bundled held-out people; then the same rows at one seed
without known focal lengths, in training and at test. Writes ablation.json, table.md and ablation.svg.
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
from cliff_ms.data.annotations import load_annotations, save_annotations
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
    "CLIFF": (True, True),
}
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
    runs = [("known", seed) for seed in range(args.seeds)] + [("estimated", 0)]
    weights = {(focal, row, seed): _train(args, focal, row, seed) for focal, seed in runs for row in ROWS}
    runtime.setup_device("CPU")
    scores = {run: _score(path, run[0]) for run, path in weights.items()}
    distances, curves = _curves({run: s for run, s in scores.items() if run[0] == "known"})
    known, estimated = (_table(scores, focal) for focal in ("known", "estimated"))
    result = {
        "steps": args.steps,
        "seeds": args.seeds,
        "known focal length": known,
        "estimated focal length": estimated,
        "distance": distances.tolist(),
        "global_rotation_deg by distance": {row: curve.tolist() for row, curve in curves.items()},
    }
    with atomic_path(args.output_dir / "ablation.json") as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    _plot(args.output_dir / "ablation.svg", distances, curves)
    text = f"{_markdown(known)}\n\nFocal lengths estimated from the image size, seed 0:\n\n{_markdown(estimated)}\n"
    with atomic_path(args.output_dir / "table.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text)
    return 0


def _train(args: argparse.Namespace, focal: str, row: str, seed: int) -> Path:
    """Train one row, or go on with it; returns the final weights."""
    location_input, full_frame = ROWS[row]
    name = f"{focal}_{int(location_input)}{int(full_frame)}_{seed}"
    final = args.work_dir / name / "checkpoints" / "final.ckpt"
    if not final.is_file():
        resume = ["--resume"] if (args.work_dir / name / "config.yaml").is_file() else []
        settings = {
            "model.location_input": location_input,
            "loss.full_frame": full_frame,
            "data.focal_length": focal,
            "data.batch_size": 256,
            "train.steps": args.steps,
            "train.learning_rate": 7e-4,
            "train.lr_drops": [0.7, 0.9],
            "train.lr_anneal": 0.0,
            "train.seed": seed,
            "train.val_every": 0,
            "train.picture_every": 0,
        }
        command = [sys.executable, "train.py", "--config", "configs/cliff_keypoints.yaml", "--device_target", "CPU"]
        command += ["--output_dir", str(args.work_dir.resolve() / name), *resume, "--set"]
        subprocess.run(
            [*command, *(f"{key}={json.dumps(value)}" for key, value in settings.items())], cwd=ROOT, check=True
        )
    return final


def _score(ckpt: Path, focal: str) -> "Scores":  # noqa: F821  imports MindSpore, after the device is chosen
    """Errors of each held-out person."""
    from cliff_ms.evaluation.rows import open_rows
    from cliff_ms.evaluation.scoring import Evaluator

    protocol = find_protocol("synthetic", None)
    weights = load_weights(ckpt)
    network, batch_size = load_network(weights, "mindspore", 32)
    people = load_annotations(HELD_OUT / "annotations.npz")
    if focal != "known":
        people = replace(people, focal_length=np.full_like(people.focal_length, np.nan))
    with tempfile.TemporaryDirectory() as folder:
        annotations = Path(folder) / "people.npz"
        save_annotations(annotations, people)
        data, _ = open_rows(protocol, annotations, None, weights.meaning.model, batch_size)
        return Evaluator(protocol, load_bodies(protocol, data.gender, None, None))(network, data)


def _table(scores: dict, focal: str) -> dict[str, dict[str, list[float]]]:
    """Row -> metric -> mean and standard deviation over the seeds."""
    table = {}
    for row in ROWS:
        runs = [s.errors for (f, r, _), s in scores.items() if (f, r) == (focal, row)]
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


def _curves(scores: dict) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Mean distance (BINS,) of each bin, and row -> global rotation error (seeds, BINS)."""
    distance = next(iter(scores.values())).distance
    bins = np.array_split(np.argsort(distance, kind="stable"), BINS)
    curves = {
        row: np.array(
            [[s.errors["global_rotation_deg"][b].mean() for b in bins] for (_, r, _), s in scores.items() if r == row]
        )
        for row in ROWS
    }
    return np.array([distance[b].mean() for b in bins]), curves


def _plot(path: Path, distances: np.ndarray, curves: dict[str, np.ndarray]) -> None:
    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    for row, curve in curves.items():
        (line,) = axes.plot(distances, curve.mean(0), marker="o", label=row)
        axes.fill_between(distances, curve.min(0), curve.max(0), color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set_xlabel("distance of the person from the image centre (100 % = the corner)")
    axes.set_ylabel("global rotation error (degrees)")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    cli.run(main)
