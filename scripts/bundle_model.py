"""Put a trained keypoint model into model_zoo/, with its scores on the held-out people in its side-car.

    python train.py --config configs/cliff_keypoints.yaml
    python scripts/bundle_model.py outputs/cliff_keypoints   or, of trainings each from the last one's weights
    python scripts/bundle_model.py outputs/first outputs/second

Prints the table of model_zoo/README.md and the sha256 for model_zoo/manifest.yaml.
"""

import argparse
import dataclasses
import itertools
from pathlib import Path

from cliff_ms import cli, runtime
from cliff_ms.body.files import load_body
from cliff_ms.config import Config, load_config
from cliff_ms.evaluation.protocols import KEYPOINTS, find_protocol
from cliff_ms.weights.checkpoint import load_weights, save_weights
from cliff_ms.zoo import BUNDLED_MODEL, HELD_OUT, HELD_OUT_RECORDED

_METRICS = ("mpjpe_mm", "pa_mpjpe_mm", "pve_mm", "global_rotation_deg")


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run_dirs", type=Path, nargs="+", metavar="RUN_DIR", help="OUTPUT_DIR of train.py")
    return parser.parse_args()


def _words(config: Config) -> str:
    """What a training was."""
    samples = config.train.steps * config.data.batch_size * config.train.accumulate / 1e6
    share = config.data.from_files / config.data.batch_size
    rendered = f", {share:.0%} of them with keypoints that the bundled detector found in pictures" if share else ""
    return (
        f"by train.py --config configs/cliff_keypoints.yaml on {samples:.1f} million synthetic samples{rendered}, seed "
        f"{config.train.seed}."
    )


def main() -> int:
    """Copy, score, write the scores."""
    args = parse_args()
    runtime.setup_device("CPU")
    from cliff_ms.evaluation.evaluate import EvalJob, evaluate
    from cliff_ms.inference.fit import Fit
    from cliff_ms.training.errors import measure_weights

    final = load_weights(args.run_dirs[-1] / "checkpoints" / "final.ckpt")
    configs = [load_config(run_dir / "config.yaml") for run_dir in args.run_dirs]
    first = configs[0].train.pretrained
    before = f"{load_weights(first).meaning.origin} Then" if first else "Trained"
    origin = f"{before} {' Then '.join(map(_words, configs))}"
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
