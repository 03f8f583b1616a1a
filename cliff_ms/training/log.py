"""The record of a training: a JSON line per step, and the same for TensorBoard."""

import contextlib
import json
import math
import os
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from cliff_ms.io.errors import InputError
from cliff_ms.io.files import atomic_path


class TrainLog:
    """`log.jsonl`, `validation.jsonl`, `spikes.jsonl` where there are any, and a TensorBoard event file in one folder.

    Numbers that are not finite are written as null.

    Args:
        output_dir: The folder.
        step: The step that training goes on from; lines of later steps, which will come again, are removed.
        pending: Whether the validation of that step will come again too.

    Raises:
        InputError: If a file cannot be written.
    """

    def __init__(self, output_dir: Path, step: int = 0, pending: bool = False) -> None:
        self._files: dict[str, IO[str]] = {}
        for name, last in (("log", step), ("validation", step - pending), ("spikes", step)):
            file = output_dir / f"{name}.jsonl"
            if file.exists():
                _cut(file, last)
        for name in ("log", "validation"):
            self._files[name] = (output_dir / f"{name}.jsonl").open("a", encoding="utf-8", buffering=1)
        self._spikes = output_dir / "spikes.jsonl"
        self._events = EventFile(output_dir, step)

    def write(self, name: str, step: int, values: dict[str, float]) -> None:
        """Add the values of a step to 'log' or 'validation'.

        Raises:
            InputError: If the disk is full.
        """
        line = {key: value if math.isfinite(value) else None for key, value in values.items()}
        try:
            self._files[name].write(json.dumps({"step": step, **line}) + "\n")
            self._events.write(step, {f"{name}/{key}": value for key, value in values.items()})
        except OSError as error:
            raise InputError(
                f"Cannot write {name}.jsonl of step {step}: {error.strerror}; make room and go on with --resume."
            ) from error

    def write_spike(self, step: int, loss: float, median: float, rows: Sequence[tuple[str, int]]) -> None:
        """Add a step of unusual loss to 'spikes', with the annotation files and rows of its samples.

        Raises:
            InputError: If the disk is full.
        """
        spike = {"step": step, "loss": loss if math.isfinite(loss) else None, "median": median, "rows": rows}
        try:
            with self._spikes.open("a", encoding="utf-8") as file:
                file.write(json.dumps(spike) + "\n")
        except OSError as error:
            raise InputError(f"Cannot write {self._spikes}: {error.strerror}.") from error

    def close(self) -> None:
        """Close all files."""
        for file in (*self._files.values(), self._events):
            with contextlib.suppress(OSError):  # of a line that did not fit on the disk, which `write` has reported
                file.close()


class EventFile:
    """TensorBoard's format: records of (length, checksum, protobuf, checksum); written without TensorBoard.

    Args:
        folder: Where TensorBoard will look.
        step: Points of later steps in older files of the folder are dropped by TensorBoard.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._file = (folder / f"events.out.tfevents.{time.time_ns()}.{os.getpid()}").open("wb", buffering=0)
        self._record(_field(3, b"brain.Event:2"))
        session_start = _field(7, _field(1, 1))
        self._record(_field(2, step + 1) + session_start)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Add one point to the curve of each name."""
        summary = b"".join(_field(1, _field(1, name.encode()) + _field(2, float(v))) for name, v in values.items())
        self._record(_field(2, step) + _field(5, summary))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _record(self, event: bytes) -> None:
        event = b"\x09" + struct.pack("<d", time.time()) + event  # field 1, a double: wall time
        length = struct.pack("<Q", len(event))
        self._file.write(length + _checksum(length) + event + _checksum(event))


def _field(number: int, value: int | float | bytes) -> bytes:
    """One protobuf field: an int as varint, a float as 32 bits, bytes with their length."""
    if isinstance(value, float):
        return bytes([number << 3 | 5]) + struct.pack("<f", value)
    if isinstance(value, int):
        return bytes([number << 3]) + _varint(value)
    return bytes([number << 3 | 2]) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + bytes([value]))


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)  # CRC-32C
        table.append(value)
    return table


_TABLE = _crc_table()


def _checksum(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 255] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)  # masked, as the format wants


def _step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, TypeError, KeyError):  # the power failed while it was written
        return math.inf


def _cut(file: Path, step: int) -> None:
    """Keep the whole lines of the steps up to one."""
    kept = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        if not line.endswith("\n") or _step(line) > step:
            break
        kept.append(line)
    with atomic_path(file) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")
