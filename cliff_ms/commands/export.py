"""A checkpoint to a file that runs elsewhere: MindIR, ONNX or AIR.

The file holds the way from a normalised crop (or keypoints) and its place in the image to pose, shape and the
translation in the full image's camera. An ONNX file names them: inputs, center, bbox_size, img_hw, focal_length;
pred_rotmat, pred_betas, pred_cam_crop, pred_cam_full. No array of the body model is in it unless you ask with
--with_smpl: vertices and joints follow, and SMPL's licence would then apply to the file.
"""

import argparse
from pathlib import Path

from cliff_ms import cli, runtime
from cliff_ms.body.files import load_body
from cliff_ms.io.errors import InputError

FORMATS = ("mindir", "onnx", "air")


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", metavar="OUT", type=Path, help="file to write, ending in the format's name")
    parser.add_argument("--ckpt", type=Path, required=True, help="weights written by convert.py or train.py")
    parser.add_argument("--format", choices=FORMATS, required=True, help="air needs Ascend")
    parser.add_argument(
        "--batch_size", type=cli.positive_int, help="the only one that the file takes (default: any, but 1 in air)"
    )
    parser.add_argument("--with_smpl", action="store_true", help="also the body: vertices and joints in the output")
    parser.add_argument("--body", type=Path, help="with --with_smpl: SMPL .pkl or .npz; default: the bundled free body")
    cli.add_device_argument(parser)
    return parser.parse_args()


def main() -> None:
    """Export and say how far the file's output is from MindSpore's."""
    args = parse_args()
    if args.body and not args.with_smpl:
        raise InputError("--body goes with --with_smpl.")
    body = load_body(args.body) if args.with_smpl else None
    runtime.setup_device(args.device_target)
    from cliff_ms.weights.checkpoint import load_weights
    from cliff_ms.weights.export import export_network
    from cliff_ms.weights.networks import load_model

    weights = load_weights(args.ckpt)
    difference = export_network(load_model(weights), weights.meaning, args.target, args.format, args.batch_size, body)
    checked = "not checked: it runs only there" if args.format == "air" else f"at most {difference:g} from MindSpore's"
    print(f"wrote {args.target} ({args.target.stat().st_size / 1e6:.1f} MB) and its side-car; its output is {checked}")
    if body is not None:
        print(f"The body '{body.name}' is inside: its licence applies to the file.")
