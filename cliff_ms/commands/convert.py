"""Convert weights between PyTorch and MindSpore without losing a bit."""

import argparse
from pathlib import Path

from cliff_ms.io.files import check_not_overwritten
from cliff_ms.weights import pytorch as torch_weights
from cliff_ms.weights.checkpoint import (
    TORCH_SUFFIXES,
    WEIGHT_SUFFIXES,
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
    parser.add_argument("source", metavar="SRC", type=Path, help="PyTorch file, or with --to torch .ckpt, .safetensors")
    parser.add_argument("target", metavar="DST", type=Path, help=".ckpt or .safetensors; with --to torch .pt or .pth")
    parser.add_argument(
        "--dialect",
        choices=tuple(torch_weights.DIALECTS),
        help="with --to mindspore: read SRC as this instead of recognising it by its keys; with --to torch: 'official' "
        "(default for a model) or 'imagenet' (the encoder alone, default for an encoder)",
    )
    return parser.parse_args()


def main() -> None:
    """Convert, and say what was recognised and written."""
    args = parse_args()
    check_output(args.target, WEIGHT_SUFFIXES if args.to == "mindspore" else TORCH_SUFFIXES)
    check_not_overwritten(args.target, {"SRC": args.source})
    if args.to == "mindspore":
        arrays, meta = torch_weights.to_mindspore(args.source, args.dialect)
        save_weights(args.target, arrays, meta)
        written = f"{args.target} and {side_car(args.target).name}"
    else:
        weights = load_weights(args.source)
        arrays, meta = weights.arrays, weights.meaning
        torch_weights.save_torch(args.target, torch_weights.to_torch(arrays, meta, args.dialect))
        written = str(args.target)
    print(f"read {args.source}: {meta.origin}; {meta.part} with encoder {meta.model.encoder}, {len(arrays)} arrays")
    print(f"wrote {written} ({args.target.stat().st_size / 1e6:.1f} MB)")
