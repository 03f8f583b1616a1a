"""Convert weights between PyTorch and MindSpore without losing a bit.

MindSpore weights that lack their side-car get one: what no array tells of how they were trained is said by options.
"""

import argparse
from pathlib import Path

import numpy as np

from cliff_ms import cli
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import check_not_overwritten
from cliff_ms.weights import pytorch as torch_weights
from cliff_ms.weights.adopt import Conventions, adopt, is_mindspore
from cliff_ms.weights.checkpoint import (
    TORCH_SUFFIXES,
    WEIGHT_SUFFIXES,
    WeightsMeta,
    check_output,
    load_weights,
    save_weights,
    side_car,
)


def parse_args() -> argparse.Namespace:
    """The command line."""
    dialects = "\n".join(f"  {name:10} {rules.title}" for name, rules in torch_weights.DIALECTS.items())
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"dialects of PyTorch files:\n{dialects}\n\nA side-car, DST.json, goes with every MindSpore file.",
    )
    parser.add_argument("--to", required=True, choices=("mindspore", "torch"), help="what to write")
    parser.add_argument(
        "source",
        metavar="SRC",
        type=Path,
        help="PyTorch file (.pt, .pth, .safetensors, ...) or MindSpore's (.ckpt, .safetensors)",
    )
    parser.add_argument("target", metavar="DST", type=Path, help=".ckpt or .safetensors; with --to torch .pt or .pth")
    parser.add_argument(
        "--dialect",
        choices=tuple(torch_weights.DIALECTS),
        help="with --to mindspore: read SRC as this instead of recognising it by its keys; with --to torch: 'official' "
        "(default for a model) or 'imagenet' (the encoder alone, default for an encoder)",
    )
    adopted = parser.add_argument_group("of MindSpore weights without a side-car")
    adopted.add_argument("--bbox_norm", choices=("eq5", "released"), help="normalisation of the location, see README")
    adopted.add_argument("--crop_style", choices=("affine", "rounded"), help="how crops were cut")
    adopted.add_argument(
        "--crop_hw", nargs=2, type=cli.positive_int, metavar=("H", "W"), help="size of the crops in px"
    )
    adopted.add_argument("--body", metavar="NAME", help="body whose shapes they speak: smpl, or the name of another")
    return parser.parse_args()


def main() -> None:
    """Convert, and say what was recognised and written."""
    args = parse_args()
    check_output(args.target, WEIGHT_SUFFIXES if args.to == "mindspore" else TORCH_SUFFIXES)
    check_not_overwritten(args.target, {"SRC": args.source})
    if args.to == "mindspore":
        arrays, meta = _read(args)
        save_weights(args.target, arrays, meta)
        written = f"{args.target} and {side_car(args.target).name}"
    else:
        weights = load_weights(args.source)
        arrays, meta = weights.arrays, weights.meaning
        torch_weights.save_torch(args.target, torch_weights.to_torch(arrays, meta, args.dialect))
        written = str(args.target)
    print(f"read {args.source}: {meta.origin}; {meta.part} with encoder {meta.model.encoder}, {len(arrays)} arrays")
    print(f"wrote {written} ({args.target.stat().st_size / 1e6:.1f} MB)")


def _read(args: argparse.Namespace) -> tuple[dict[str, np.ndarray], WeightsMeta]:
    crop_hw = tuple(args.crop_hw) if args.crop_hw else None
    conventions = Conventions(args.bbox_norm, args.crop_style, crop_hw, args.body)
    described = is_mindspore(args.source) and side_car(args.source).is_file()
    adopts = is_mindspore(args.source) and not described
    if conventions.given() and not adopts:
        told = f"{side_car(args.source)} says these" if described else "PyTorch's are known by their dialect"
        raise InputError(f"--{next(iter(conventions.given()))} goes with MindSpore weights without a side-car: {told}.")
    if args.dialect and (adopts or described):
        raise InputError(f"--dialect goes with PyTorch files, and {args.source} is MindSpore's.")
    if adopts:
        return adopt(args.source, conventions)
    if described:
        weights = load_weights(args.source)
        return weights.arrays, weights.meaning
    return torch_weights.to_mindspore(args.source, args.dialect)
