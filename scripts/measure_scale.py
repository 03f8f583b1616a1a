"""What large data sets cost: opening a million rows in several workers, and samples a second of one process.

    python scripts/measure_scale.py [--rows 1000000] [--folder D]

Made-up rows of all labels, as of COCO, MPII, Human3.6M, 3DHP and BEDLAM together, and pictures of 1280x720; the recipe
of configs/cliff_res50.yaml. The part of a sample that is under Python's lock is what is left of it without the calls of
OpenCV and of the file system, which leave the lock: an upper bound, as NumPy leaves it too. Threads share all else.
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from benchmark_data import BATCH_SIZE, CROP_HW, make_pictures

from cliff_ms import cli
from cliff_ms.config import AugmentConfig, Config, DataConfig, ModelConfig, SourceConfig
from cliff_ms.data import augment, crop, decoding, occlusion
from cliff_ms.data.annotation_files import load_annotations, save_annotations
from cliff_ms.data.dataset import TrainDataset
from cliff_ms.data.loader import load_batches
from cliff_ms.zoo import HELD_OUT

AUGMENTATION = AugmentConfig(occlusion=0.5, crop=0.1)
WORKERS = 2
DEVICES = 8
BATCHES = 40


def make_rows(path: Path, rows: int) -> None:
    """Write an annotation file that repeats the held-out people."""
    people = load_annotations(HELD_OUT / "annotations.npz")
    save_annotations(path, people.take(np.arange(rows) % len(people)))


def open_rows(path: Path, compressed: bool, answers: Any) -> None:
    """What a worker of a training does with a file: seconds, and MB of memory that are its own."""
    before, start = _own_memory(), time.perf_counter()
    known = load_annotations(path)
    labelled = (known.keypoints2d[..., 2] > 0).any(1) | (known.keypoints3d[..., 3] > 0).any(1) | (known.has_smpl > 0)
    seconds = time.perf_counter() - start
    answers.put((compressed, len(known), int(labelled.sum()), seconds, (_own_memory() - before) / 2**20))


def opened(path: Path) -> list[dict]:
    """The rows of a table: several workers at once, with the file as it is, and compressed as others write it."""
    context, table = multiprocessing.get_context("spawn"), []
    with np.load(path) as file:
        np.savez_compressed(path.with_name("compressed.npz"), **{key: file[key] for key in file.files})
    for file, name in (
        (path.with_name("compressed.npz"), "compressed npz of others"),
        (path, "as prepare.py writes it"),
    ):
        answers = context.SimpleQueue()
        workers = [context.Process(target=open_rows, args=(file, name, answers)) for _ in range(WORKERS)]
        for worker in workers:
            worker.start()
        for _ in workers:
            what, count, _, seconds, memory = answers.get()
            size = file.stat().st_size / 2**20
            table.append(
                {
                    "file": what,
                    "rows": f"{count:,}",
                    "size": f"{size:.0f} MB",
                    "s": seconds,
                    "own memory": f"{memory:.0f} MB",
                }
            )
        for worker in workers:
            worker.join()
    return table


def loaded(folder: Path) -> list[dict]:
    """Samples a second by the number of threads, and the time under the lock."""
    make_pictures(folder)
    source = SourceConfig(str(folder / "people.npz"), str(folder))
    data = DataConfig(train=(source,), batch_size=BATCH_SIZE)
    load = TrainDataset(Config(ModelConfig(crop_hw=CROP_HW), data, AUGMENTATION)).batch
    load(0)
    table = []
    for threads in (1, 2, 4):
        start = time.perf_counter()
        count = sum(len(batch.inputs) for batch in load_batches(load, threads, 0, BATCHES))
        table.append({"threads": threads, "samples/s": f"{count / (time.perf_counter() - start):.0f}"})
    whole, outside = _time_outside_lock(load)
    per_sample = (whole - outside) / (BATCHES * BATCH_SIZE)
    table.append({"threads": "any number", "samples/s": f"at most {1 / per_sample:.0f}"})
    whole /= BATCHES * BATCH_SIZE
    print(f"one sample: {1e3 * whole:.2f} ms, of which under Python's lock at most {1e3 * per_sample:.2f} ms")
    for cores in (32, 64, 128):
        of_host = min(cores / whole, DEVICES / per_sample)
        print(f"{DEVICES} devices, a process each, and {cores} cores like this one: {of_host:.0f} samples/s (computed)")
    return table


def _time_outside_lock(load: Callable) -> tuple[float, float]:
    """Seconds of all batches in one thread, and of the calls that leave the lock."""
    outside = 0.0

    def timed(function: Callable) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal outside
            start = time.perf_counter()
            result = function(*args, **kwargs)
            outside += time.perf_counter() - start
            return result

        return call

    class TimedOpenCV:
        def __getattr__(self, name: str) -> Any:
            member = getattr(cv2, name)
            setattr(self, name, timed(member) if callable(member) and name[0].islower() else member)
            return self.__dict__[name]

    opencv = TimedOpenCV()
    for module in (augment, crop, decoding, occlusion):
        module.cv2 = opencv
    Path.read_bytes = timed(Path.read_bytes)  # type: ignore[method-assign]
    start = time.perf_counter()
    for index in range(BATCHES):
        load(index)
    return time.perf_counter() - start, outside


def _own_memory() -> int:
    """Bytes of this process that it shares with no other."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Private_"))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=cli.positive_int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where the file is made; default: the temporary folder")
    args = parser.parse_args()
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        print(cli.table(loaded(folder)), "\n")
        make_rows(folder / "rows.npz", args.rows)
        print(cli.table(opened(folder / "rows.npz")))


if __name__ == "__main__":
    main()
