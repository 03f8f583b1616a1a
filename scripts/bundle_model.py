"""Put a trained keypoint model into model_zoo/, its measured errors and its scores on the held-out people beside it.

    python train.py --config configs/cliff_keypoints.yaml
    python scripts/bundle_model.py outputs/cliff_keypoints      or, of a second training that began with its weights
    python scripts/bundle_model.py outputs/cliff_keypoints_2

Prints the table of model_zoo/README.md and the sha256 for model_zoo/manifest.yaml.
"""

import argparse
import dataclasses
from pathlib import Path

from cliff_ms import cli, runtime
from cliff_ms.body.files import load_body
from cliff_ms.config import load_config
from cliff_ms.evaluation.protocols import find_protocol
from cliff_ms.weights.checkpoint import load_weights, save_weights
from cliff_ms.zoo import BUNDLED_MODEL, HELD_OUT

_KEYPOINTS = {"clean": "heldout", "openpose25": "heldout_openpose25", "noisy": "heldout_noisy", "half": "heldout_half"}
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
    for keypoints, name in _KEYPOINTS.items():
        job = EvalJob(find_protocol("synthetic", None), bundled, HELD_OUT / "annotations.npz", keypoints=keypoints)
        result = evaluate(job).values
        metrics[name] = {key: round(result[key], 2) for key in _METRICS}
        fitted = evaluate(dataclasses.replace(job, fit=Fit)).values
        rows.append({"keypoints": keypoints, **metrics[name], **{f"fitted {key}": fitted[key] for key in _METRICS[:2]}})
    rows.append({"keypoints": "constant mean pose", **{key: result["mean_pose"][key] for key in _METRICS}})
    save_weights(BUNDLED_MODEL, final.arrays, dataclasses.replace(bundled.meaning, metrics=metrics))
    print(cli.table(rows))
    print("sha256:", bundled.sha256)
    return 0


if __name__ == "__main__":
    cli.run(main)
