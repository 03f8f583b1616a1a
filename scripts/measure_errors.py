"""Measure how far a keypoint model's predictions are off, and write it into the side-car of its weights, for the fit.

    python scripts/measure_errors.py --ckpt outputs/mine/checkpoints/best.ckpt

train.py does so itself with final.ckpt, where it learns from the stream of synthetic people. Measured on 6,000 of them,
half with exact keypoints and half with a detector's.
"""

import argparse
import dataclasses
from pathlib import Path

from cliff_ms import cli, runtime
from cliff_ms.body.files import load_body
from cliff_ms.io.errors import InputError
from cliff_ms.weights.checkpoint import WEIGHT_SUFFIXES, check_body, load_weights, save_weights, side_car


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ckpt", type=Path, required=True, help="weights of a keypoint model, .ckpt or .safetensors")
    parser.add_argument("--body", type=Path, help="the body that it predicts; default: the bundled free body")
    cli.add_device_argument(parser)
    return parser.parse_args()


def main() -> int:
    """Measure and write."""
    args = parse_args()
    weights, body = load_weights(args.ckpt), load_body(args.body)
    meaning = weights.meaning
    if args.ckpt.suffix not in WEIGHT_SUFFIXES:
        raise InputError(
            f"{args.ckpt} is an exported network: measure the weights that it was made of, and export again."
        )
    if meaning.part != "model" or not meaning.model.reads_keypoints:
        raise InputError(f"{args.ckpt} reads no keypoints: its errors cannot be measured on the synthetic stream.")
    check_body(meaning, body, str(args.ckpt))
    runtime.setup_device(args.device_target)
    from cliff_ms.training.errors import measure_weights

    measured = measure_weights(weights.arrays, meaning.model, body)
    save_weights(args.ckpt, weights.arrays, dataclasses.replace(meaning, error_deviations=measured))
    print(f"{len(measured)} deviations written to {side_car(args.ckpt)}")
    return 0


if __name__ == "__main__":
    cli.run(main)
