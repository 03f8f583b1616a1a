"""Put a trained keypoint model into model_zoo/, its measured errors and its scores on the held-out people beside it.

    python train.py --config configs/cliff_keypoints.yaml
    python scripts/bundle_model.py outputs/cliff_keypoints      or, of a second training that began with its weights
    python scripts/bundle_model.py outputs/cliff_keypoints_2

Prints the table of model_zoo/README.md and the sha256 for model_zoo/manifest.yaml.
"""

import argparse
import dataclasses
import itertools
from pathlib import Path

from cliff_ms import cli, runtime
from cliff_ms.body.files import load_body
from cliff_ms.config import load_config
from cliff_ms.evaluation.protocols import KEYPOINTS, find_protocol
from cliff_ms.weights.checkpoint import load_weights, save_weights
from cliff_ms.zoo import BUNDLED_MODEL, HELD_OUT, HELD_OUT_RECORDED

_METRICS = ("mpjpe_mm", "pa_mpjpe_mm", "pve_mm", "global_rotation_deg")


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run_dir", type=Path, help="OUTPUT_DIR of train.py")
    return parser.parse_args()


def main() -> int:
    """Copy, score, write the scores."""
    args = parse_args()
    runtime.setup_device("CPU")
    from cliff_ms.evaluation.evaluate import EvalJob, evaluate
    from cliff_ms.inference.fit import Fit
    from cliff_ms.training.errors import measure_weights

    config = load_config(args.run_dir / "config.yaml")
    final = load_weights(args.run_dir / "checkpoints" / "final.ckpt")
    samples = config.train.steps * config.data.batch_size * config.train.accumulate
    first = config.train.pretrained
    origin = (
        f"{load_weights(first).meaning.origin + ' Then' if first else 'Trained'} by train.py --config "
        f"configs/cliff_keypoints.yaml on {samples / 1e6:.1f} million synthetic samples, seed {config.train.seed}."
    )
    # Measured anew: the stream may have changed since the training.
    measured = measure_weights(final.arrays, final.meaning.model, load_body())
    meaning = dataclasses.replace(final.meaning, origin=origin, metrics={}, error_deviations=measured)
    save_weights(BUNDLED_MODEL, final.arrays, meaning)
    bundled = load_weights(BUNDLED_MODEL)
    rows, metrics = [], {}
    for folder, keypoints in itertools.product((HELD_OUT, HELD_OUT_RECORDED), KEYPOINTS):
        job = EvalJob(find_protocol("synthetic", None), bundled, folder / "annotations.npz", keypoints=keypoints)
        predicted, fitted = (evaluate(dataclasses.replace(job, fit=fit)).values for fit in (None, Fit))
        scores = {key: predicted[key] for key in _METRICS} | {f"fitted_{key}": fitted[key] for key in _METRICS[:2]}
        name = folder.name if keypoints == "clean" else f"{folder.name}_{keypoints}"
        metrics[name] = {key: round(value, 2) for key, value in scores.items()}
        rows.append({"people": folder.name, "keypoints": keypoints, "count": predicted["count"], **metrics[name]})
    save_weights(BUNDLED_MODEL, final.arrays, dataclasses.replace(bundled.meaning, metrics=metrics))
    print(cli.table(rows))
    print("sha256:", bundled.sha256)
    return 0


if __name__ == "__main__":
    cli.run(main)
