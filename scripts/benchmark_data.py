"""Images a second of the data pipeline, against a torch DataLoader of the plain transforms, on the same 720p JPEGs.

    python scripts/benchmark_data.py [--workers 2] [--turns 5]

Both sides decode, augment (flip, scale, rotation, channel noise) by the same rules, warp once to 256x192, normalise and
make batches of 32 with their labels. The plain side decodes the whole picture, computes noise and normalisation in
NumPy, and loads in processes. Each side has a process of its own, and they take turns.

A contender is a function of the folder of the run; it returns the call to be timed, one pass over all pictures, whose
result is the number of images that came.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

ROOT = Path(__file__).resolve().parent.parent
PICTURES = 320
BATCH_SIZE = 32
CROP_HW = (256, 192)
GOAL = 1.3
Call = Callable[[], list[np.ndarray]]


def make_pictures(folder: Path) -> None:
    """Write the pictures (1280x720, quality 90, about 200 kB each), and people of 520 to 700 px in them."""
    rng = np.random.default_rng(0)
    different = 40
    for k in range(different):
        small = rng.integers(0, 256, (45, 80, 3), np.uint8)
        picture = cv2.resize(small, (1280, 720), interpolation=cv2.INTER_CUBIC).astype(int)
        picture = np.clip(picture + rng.integers(-4, 5, picture.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{k}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
    np.savez(
        folder / "people.npz",
        imgname=np.array([f"{k % different}.jpg" for k in range(PICTURES)]),
        center=rng.uniform([300, 300], [980, 420], (PICTURES, 2)),
        scale=rng.uniform(2.6, 3.5, PICTURES),
        part=np.concatenate([rng.uniform(200, 500, (PICTURES, 24, 2)), np.ones((PICTURES, 24, 1))], -1),
        pose=rng.normal(0, 0.3, (PICTURES, 72)),
        shape=rng.normal(size=(PICTURES, 10)),
    )


def our_pipeline(folder: Path, workers: int) -> Call:
    """TrainDataset, loaded ahead in threads."""
    from cliff_ms.config import Config, DataConfig, ModelConfig, SourceConfig
    from cliff_ms.data.dataset import TrainDataset
    from cliff_ms.data.loader import load_batches

    source = SourceConfig(str(folder / "people.npz"), str(folder))
    data = DataConfig(train=(source,), batch_size=BATCH_SIZE)
    load = TrainDataset(Config(ModelConfig(crop_hw=CROP_HW), data)).batch
    batches = PICTURES // BATCH_SIZE
    return lambda: [np.array(sum(len(batch[0]) for batch in load_batches(load, workers, 0, batches)))]


def torch_pipeline(folder: Path, workers: int) -> Call:
    """The plain transforms in a torch DataLoader, its workers kept from pass to pass."""
    import torch

    loader = torch.utils.data.DataLoader(
        PlainDataset(folder),
        BATCH_SIZE,
        shuffle=True,
        num_workers=workers,
        persistent_workers=True,
        worker_init_fn=lambda _: cv2.setNumThreads(0),
    )
    return lambda: [np.array(sum(len(batch[0]) for batch in loader))]


class PlainDataset:
    """The people one by one, their pixels treated the plain way."""

    def __init__(self, folder: Path) -> None:
        from cliff_ms.config import AugmentConfig
        from cliff_ms.data.annotations import load_annotations

        self.folder = folder
        self.people = load_annotations(folder / "people.npz")
        self.config = AugmentConfig()

    def __len__(self) -> int:
        return len(self.people)

    def __getitem__(self, row: int) -> tuple[np.ndarray, ...]:
        from cliff_ms.data import augment
        from cliff_ms.data.crop import normalize_image

        rng = np.random.default_rng(row)
        picture = cv2.cvtColor(cv2.imread(str(self.folder / self.people.image_names[row])), cv2.COLOR_BGR2RGB)
        sample = augment.Sample(
            center=self.people.center[row].astype(float),
            size=float(self.people.size[row]),
            img_hw=np.array(picture.shape[:2], float),
            keypoints2d=self.people.keypoints2d[row],
            keypoints3d=self.people.keypoints3d[row],
            rotmats=Rotation.from_rotvec(self.people.pose[row].reshape(24, 3)).as_matrix(),
        )
        sample = augment.augment(sample, rng, self.config, CROP_HW)
        noise = augment.channel_noise(rng, self.config).astype(np.float32)
        crop = np.minimum(augment.cut(picture, 1, sample, CROP_HW) * noise, 255)
        labels = (sample.center, sample.size, sample.img_hw, np.hypot(*sample.img_hw), sample.keypoints2d)
        labels += (sample.keypoints3d, sample.rotmats, self.people.betas[row], self.people.has_smpl[row])
        return normalize_image(crop), *(np.asarray(label, np.float32) for label in labels)


def measure(turns: int, workers: int) -> dict[str, list[float]]:
    """Images a second of each side in each turn."""
    rates: dict[str, list[float]] = {"our_pipeline": [], "torch_pipeline": []}
    with tempfile.TemporaryDirectory(prefix="cliff_benchmark") as folder:
        make_pictures(Path(folder))
        processes = {name: _start(name, folder, workers) for name in rates}
        for _ in range(turns):
            for name, process in processes.items():
                print("go", file=process.stdin, flush=True)
                rates[name].append(float(process.stdout.readline()))
        for process in processes.values():
            process.stdin.close()
            process.wait()
    return rates


def main() -> None:
    """Run the benchmark, or, called by itself, one side of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="of either side (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=5, help="passes of each side (default: %(default)s)")
    parser.add_argument("--side", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        _take_turns(*arguments.side, arguments.workers)
        return
    rates = measure(arguments.turns, arguments.workers)
    ours, plain = (max(rates[name]) for name in ("our_pipeline", "torch_pipeline"))
    print(f"ours {ours:.0f} images/s, torch DataLoader {plain:.0f} images/s: {ours / plain:.2f} times (goal {GOAL})")
    print(json.dumps({"workers": arguments.workers, "images_per_second": rates}))


def _start(name: str, folder: str, workers: int) -> subprocess.Popen:
    command = [sys.executable, __file__, "--side", name, folder, "--workers", str(workers)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, env=environment, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    if not process.stdout.readline():  # ready
        raise RuntimeError(f"{name} ended early; its message is above.")
    return process


def _take_turns(name: str, folder: str, workers: int) -> None:
    call = globals()[name](Path(folder), workers)
    call()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        (images,) = call()
        print(images / (time.perf_counter() - start), flush=True)


if __name__ == "__main__":
    main()
