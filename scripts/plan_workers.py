"""What run_distribute_train.sh must know: prints workers, device target, port and output folder.

    python scripts/plan_workers.py WORKERS|all DEVICE_TARGET CONFIG [train.py flags]

Checks that the devices are there, that configuration and output folder can be used and that the port is free.
"""

import argparse
import os
import socket
from pathlib import Path

from cliff_ms import cli, runtime
from cliff_ms.config import load_config
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import prepare_output_dir
from cliff_ms.training.data import for_workers
from cliff_ms.training.state import check_folder


def visible_devices(device_target: str) -> tuple[str, int]:
    """The device that training will take, and how many of it there are.

    Args:
        device_target: As for train.py.

    Returns:
        'Ascend', 'GPU' or 'CPU', and a number; processor cores count as devices, but there are always two workers.

    Raises:
        InputError: If the device is unknown or not there.
    """
    device = runtime.setup_device(device_target)
    if device == "CPU":
        return device, max(2, os.cpu_count() or 1)
    import mindspore as ms

    return device, ms.hal.device_count(device)


def free_port(wanted: str | None) -> int:
    """The port for the workers to meet on: the one asked for, or any that is free.

    Args:
        wanted: MASTER_PORT, if it is set.

    Returns:
        The port.

    Raises:
        InputError: If it is no port, or in use.
    """
    number = 0 if wanted is None else _port(wanted)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", number))
            listener.listen()
        except OSError as error:
            raise InputError(
                f"Port {wanted} cannot be used ({error.strerror}): set MASTER_PORT to a free one."
            ) from None
        return listener.getsockname()[1]


def main() -> None:
    """Print the plan."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("workers")
    parser.add_argument("device_target")
    parser.add_argument("config", type=Path)
    parser.add_argument("--output_dir", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--set", nargs="+", action="extend", default=[])
    args, _ = parser.parse_known_args()
    config = load_config(args.config, args.set)
    output_dir = args.output_dir or Path("outputs") / args.config.stem
    device, count = visible_devices(args.device_target)
    workers = (2 if device == "CPU" else count) if args.workers == "all" else args.workers
    if not str(workers).isdigit() or not 1 <= int(workers) <= count:
        raise InputError(
            f"WORKERS must be a number from 1 to {count}, what this machine has of {device}; got {workers}."
        )
    nodes, rank = _number("NNODES", 1), _number("NODE_RANK", 0)
    for_workers(config, int(workers) * nodes)
    port = os.environ.get("MASTER_PORT")
    if nodes > 1 and port is None:
        port = "8118"  # all machines must take the same
    if rank == 0:
        check_folder(output_dir, config, args.resume)
        prepare_output_dir(output_dir)
    port = free_port(port) if rank == 0 else _port(port or "8118")
    print(workers, device, port, output_dir)


def _port(text: str) -> int:
    if not (text.isdigit() and 0 < int(text) < 65536):
        raise InputError(f"MASTER_PORT must be a number from 1 to 65535, but is '{text}'.")
    return int(text)


def _number(name: str, default: int) -> int:
    """A number of the environment."""
    text = os.environ.get(name) or str(default)
    if not text.isdigit():
        raise InputError(f"{name} must be a number, but is '{text}'.")
    return int(text)


if __name__ == "__main__":
    cli.run(main)
