"""Train CLIFF as a configuration says. SIGTERM and Ctrl-C save the state and leave with exit code 143 or 130."""

import argparse
import os
from pathlib import Path

from cliff_ms import cli, runtime
from cliff_ms.body.files import load_body
from cliff_ms.config import load_config


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="YAML file, see configs/")
    parser.add_argument(
        "--output_dir", type=Path, help="logs, checkpoints and pictures; default: outputs/<name of the configuration>"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the newest checkpoint in the output folder, same configuration",
    )
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="SECTION.KEY=VALUE", help="replace values, in YAML"
    )
    cli.add_device_argument(parser)
    return parser.parse_args()


def main() -> int:
    """Check what was given, then load MindSpore and train."""
    args = parse_args()
    config = load_config(args.config, args.set)
    output_dir = args.output_dir or Path("outputs") / args.config.stem
    body = load_body(config.body or None)
    if config.model.reads_keypoints:
        runtime.expect_no_convolutions()
    device = runtime.setup_device(args.device_target)
    rank, world_size = runtime.setup_distributed()
    from cliff_ms.training.trainer import train

    if world_size > 1:  # run_distribute_train.sh looks for it when a process ends
        print(f"worker {rank} of {world_size}: process {os.getpid()}", flush=True)
    if rank == 0:
        print(f"training {args.config} on {device} with {world_size} worker(s), into {output_dir}")
    code = train(config, output_dir, body, args.resume, rank, world_size)
    if rank == 0 and code == 0:
        print(f"done; use the weights with: cliff demo photo.jpg ... --ckpt {output_dir}/checkpoints/final.ckpt")
    return code
