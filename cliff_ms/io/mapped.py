"""Arrays of an npz as views of the file itself: opened at once, and shared by all processes of a machine."""

import io
import math
import mmap
import struct
import zipfile
import zlib
from collections.abc import Container
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

_LOCAL_HEADER, _NAME_LENGTH = 30, 26  # bytes of a member's header, and where in it the lengths are that it goes on for
_READ_HEADER = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def map_npz(path: Path, keys: Container[str]) -> dict[str, np.ndarray] | None:
    """Arrays of an npz that `np.savez` wrote, not compressed.

    A file may be replaced while it is mapped, as `files.atomic_path` does it, but not be written over.

    Args:
        path: The file.
        keys: Which arrays, as far as they are there.

    Returns:
        Key -> array, read-only; None if the file cannot be mapped: compressed, damaged, of another kind, or of Python
        objects.
    """
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
                return None
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            return {key: _array(content, info) for key, info in members.items() if key in keys}
    except (OSError, ValueError, KeyError, struct.error, zipfile.BadZipFile):
        return None


def digest_of_members(path: Path, without: str) -> str:
    """Names, sizes and checksums of an npz's arrays, in one line; its directory states them.

    Args:
        path: The file.
        without: An array that does not count.
    """
    with zipfile.ZipFile(path) as archive:
        members = sorted((info.filename, info.file_size, info.CRC) for info in archive.infolist())
    return ";".join(f"{name},{size},{crc:08x}" for name, size, crc in members if name != f"{without}.npy")


def _array(content: mmap.mmap, info: zipfile.ZipInfo) -> np.ndarray:
    lengths = struct.unpack_from("<HH", content, info.header_offset + _NAME_LENGTH)
    start = info.header_offset + _LOCAL_HEADER + sum(lengths)
    member = memoryview(content)[start : start + info.file_size]
    if zlib.crc32(member) != info.CRC:
        raise ValueError(f"{info.filename} is damaged.")
    header = io.BytesIO(member[: 1 << 16])
    shape, fortran_order, dtype = _READ_HEADER[npy.read_magic(header)](header)
    if dtype.hasobject or not math.prod(shape):
        raise ValueError(f"{info.filename} cannot be mapped.")
    flat = np.frombuffer(member, dtype, math.prod(shape), header.tell())
    return flat.reshape(shape, order="F" if fortran_order else "C")
