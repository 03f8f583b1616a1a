"""What the command-line verbs share: the common arguments, exit codes, one-sentence errors."""

import argparse
import io
import logging
import math
import sys
from collections.abc import Callable

from cliff_ms.io.errors import InputError
from cliff_ms.io.tables import cell
from cliff_ms.runtime import DEVICE_TARGETS, ENGINES, listen_for_ctrl_c


def add_engine_arguments(parser: argparse.ArgumentParser, batch_size: int) -> None:
    """Add `--engine` and `--batch_size`, with its default, to a verb."""
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="auto",
        help="runs the network: auto takes MindSpore on Ascend and GPU, and ONNX Runtime on the CPU",
    )
    parser.add_argument(
        "--batch_size", type=positive_int, default=batch_size, help="people that go through the network at once"
    )


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--device_target` to a verb."""
    parser.add_argument(
        "--device_target",
        default="auto",
        choices=DEVICE_TARGETS,
        help="auto takes Ascend, then GPU, then CPU, and prints which; a device asked for by name is never replaced",
    )


def positive_int(text: str) -> int:
    """For argparse: a whole number from 1."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, but got '{text}'")
    return int(text)


def seconds(text: str) -> float:
    """For argparse: a finite number from 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds from 0, but got '{text}'")
    return value


def focal_length(text: str) -> float | str:
    """For argparse: a finite number above 0, in px, or 'exif' or 'estimate'."""
    if text in ("exif", "estimate"):
        return text
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be positive and finite, 'exif' or 'estimate', but got '{text}'")
    return value


def run(main: Callable[[], int | None]) -> None:
    """Run a verb and leave with its exit code.

    0 for success, 1 for a failure, 2 for bad input (argparse uses the same), 130 when interrupted.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a file name need not be text
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    listen_for_ctrl_c()
    try:
        code = main() or 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201  the verbs' one place for it
        code = 2
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def table(rows: list[dict]) -> str:
    """Rows as aligned text columns, the keys as the head; numbers with two decimals."""
    if not rows:
        return "nobody found"
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns] + [[cell(row.get(column, "")) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(text.ljust(w) for text, w in zip(line, widths, strict=True)).rstrip() for line in lines)
