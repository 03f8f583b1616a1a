"""Score weights on a data set by a published protocol; without arguments, the bundled model on the bundled people."""

import argparse
from pathlib import Path

from cliff_ms import cli, runtime
from cliff_ms.config import load_config
from cliff_ms.evaluation.protocols import KEYPOINTS, PROTOCOLS, find_protocol
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import prepare_output_dir
from cliff_ms.weights.checkpoint import check_model, load_weights
from cliff_ms.zoo import HELD_OUT, bundled_model


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ckpt", type=Path, help="weights, or an exported .onnx; default: the bundled keypoint model")
    parser.add_argument("--config", type=Path, help="training YAML whose 'model' the weights must have been trained as")
    parser.add_argument("--dataset", choices=PROTOCOLS, default="synthetic", help="which protocols apply")
    names = "; ".join(f"{dataset}: {', '.join(protocols)}" for dataset, protocols in PROTOCOLS.items())
    parser.add_argument("--protocol", help=f"default: the first of {names}")
    parser.add_argument("--annotations", type=Path, help="npz that prepare.py wrote; not needed for synthetic")
    parser.add_argument("--image_dir", type=Path, help="folder that the image names in it are relative to")
    parser.add_argument("--body", type=Path, help="neutral body that predictions are posed on, SMPL .pkl or .npz")
    parser.add_argument("--body_dir", type=Path, help="with SMPL_*.pkl, J_regressor_h36m.npy, body_verts_smpl.npy")
    parser.add_argument("--agora_root", type=Path, help="folder of AGORA's dataframes, to score its validation split")
    parser.add_argument("--agora_zip", type=Path, help="the leaderboard's file to write, of either split")
    parser.add_argument("--keypoints", choices=KEYPOINTS, default="clean", help="of synthetic people")
    parser.add_argument(
        "--fit",
        action="store_true",
        help="fit what is predicted to the file's input_keypoints before it is scored; published protocols are "
        "without it, and with keypoints made of the labels it would be cheating there",
    )
    cli.add_engine_arguments(parser, batch_size=32)
    parser.add_argument("--output", type=Path, help="JSON; default: outputs/eval/<data set>.json; a .md goes beside it")
    parser.add_argument("--visualize", type=int, default=0, metavar="N", help="the N worst people as a .jpg beside it")
    cli.add_device_argument(parser)
    return parser.parse_args()


def check(args: argparse.Namespace) -> Path:
    """Fill in what was left out, and refuse what does not go together.

    Args:
        args: The command line; `annotations` and `image_dir` of the bundled people are set, and `bundled` if so.

    Returns:
        The JSON to write, in a folder that can be written.

    Raises:
        InputError: What does not go together.
    """
    args.bundled = args.dataset == "synthetic" and args.annotations is None
    if args.bundled:
        args.annotations, args.image_dir = HELD_OUT / "annotations.npz", HELD_OUT
    if args.annotations is None:
        raise InputError(f"--dataset {args.dataset} needs --annotations F.npz and, for pixels, --image_dir D.")
    if args.visualize < 0:
        raise InputError("--visualize must not be negative.")
    output = args.output or Path("outputs/eval") / f"{args.dataset}.json"
    if output.suffix != ".json":
        raise InputError(f"--output {output} must end in .json; the tables go into a .md beside it.")
    for file in filter(None, (output, args.agora_zip)):
        prepare_output_dir(file.parent)
    return output


def main() -> int:
    """Check what was given, then load MindSpore and evaluate."""
    args = parse_args()
    protocol = find_protocol(args.dataset, args.protocol)
    if (protocol.truth == "dataframes") != bool(args.agora_root or args.agora_zip):
        raise InputError("--dataset agora goes with --agora_root D to score, --agora_zip F.zip to write, or both.")
    output = check(args)
    weights = load_weights(args.ckpt or bundled_model())
    if args.config:
        check_model(load_config(args.config), weights.meaning, str(weights.path))
    if weights.meaning.model.reads_keypoints:
        runtime.expect_no_convolutions()
    device = runtime.setup_device(args.device_target)
    from cliff_ms.evaluation.bundled import with_all_bundled
    from cliff_ms.evaluation.evaluate import EvalJob, evaluate, write_report
    from cliff_ms.inference.fit import Fit
    from cliff_ms.weights.engine import resolve_engine

    print(f"{args.dataset}, protocol '{protocol.name}' ({protocol.source})\nweights: {weights.meaning.origin}")
    engine = resolve_engine(args.engine, weights)
    print(f"engine: {engine}; device of MindSpore: {device}")
    if args.fit:
        print(f"fitted to the keypoints '{args.keypoints}' of the file before it is scored")
    job = EvalJob(
        protocol=protocol,
        weights=weights,
        annotations=args.annotations,
        image_dir=args.image_dir,
        body=args.body,
        body_dir=args.body_dir,
        keypoints=args.keypoints,
        engine=engine,
        batch_size=args.batch_size,
        visualize=args.visualize,
        agora_root=args.agora_root,
        agora_zip=args.agora_zip,
        fit=Fit if args.fit else None,
    )
    result = evaluate(job)
    if args.bundled:
        result = with_all_bundled(job, result, Fit)
    for title, rows in result.tables.items():
        print(f"\n{title}\n{cli.table(rows)}")
    network_s, outside_s = result.values["seconds"].values()
    if network_s:  # more than one batch
        print(f"\nwithout the first batch, which compiles: {network_s:.1f} s network, {outside_s:.1f} s outside it")
    print("written:", *write_report(output, result), *filter(None, [args.agora_zip]))
    return 0
