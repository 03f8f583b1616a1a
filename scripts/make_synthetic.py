"""Make pictures of synthetic people, with labels, out of nothing but a body model.

    python scripts/make_synthetic.py --output_dir data/synthetic --images 20000

Writes shard_00000/000000.jpg ... and shard_00000/annotations.npz, a shard at a time, and at the end annotations.npz for
all of them: names relative to the output folder, keys of the standard npz (imgname center scale part pose shape
has_smpl global_t focal_l S gender img_hw input_keypoints input_joint_set). A shard appears when it is whole; run the
same command again to go on after an interruption. A seed gives the same files whatever the number of workers.

    python scripts/make_synthetic.py --output_dir data/detected --images 60000 --keypoints detected --labels_only

makes what a keypoint model learns a detector's habits from: `input_keypoints` are what the bundled detector finds in
the pictures, with the crop around them; whom it does not find is left out. About 10 people a second and core.
"""

import argparse
import multiprocessing
import os
import shutil
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from cliff_ms import cli
from cliff_ms.body.files import load_body
from cliff_ms.data.annotation_files import load_annotations, save_annotations
from cliff_ms.data.annotations import Annotations, concatenate
from cliff_ms.inference.pose_detector import PoseDetector
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import claim_folder, prepare_output_dir
from cliff_ms.io.images import IMAGE_EXTENSIONS, write_image
from cliff_ms.synthetic.detected import as_detected
from cliff_ms.synthetic.scene import SceneMaker

_ANNOTATIONS = "annotations.npz"
_JPEG_QUALITY = (70, 96)
# Of this worker.
_maker: SceneMaker
_detector: PoseDetector | None


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output_dir", type=Path, required=True, help="for the pictures and annotations.npz")
    parser.add_argument("--images", type=int, required=True, help="pictures to make, each of one to four people")
    parser.add_argument("--seed", type=int, default=0, help="another one gives other pictures")
    parser.add_argument("--backgrounds", type=Path, help="folder of photos without people; default: drawn ones")
    parser.add_argument("--body", type=Path, help="SMPL .pkl or .npz; default: the bundled free body")
    parser.add_argument(
        "--keypoints",
        choices=("exact", "detected"),
        default="exact",
        help="what input_keypoints are: the true joints "
        "that can be seen, or what the bundled detector makes of the picture",
    )
    parser.add_argument("--labels_only", action="store_true", help="keep no pictures")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--shard_size", type=int, default=1000, help="pictures per folder")
    return parser.parse_args()


def main() -> None:
    """Make the shards that are not there yet, then join their annotations."""
    args = parse_args()
    if min(args.images, args.workers, args.shard_size) < 1 or args.seed < 0:
        raise InputError("--images, --workers and --shard_size must be at least 1, and --seed at least 0.")
    photos = _find_photos(args.backgrounds) if args.backgrounds else []
    load_body(args.body)  # a wrong file is reported once, and before anything is started
    output_dir = prepare_output_dir(args.output_dir)
    settings = {key: getattr(args, key) for key in ("images", "seed", "shard_size", "keypoints", "labels_only")}
    claim_folder(output_dir, {**settings, "body": str(args.body), "backgrounds": [photo.name for photo in photos]})
    shards = [range(k, min(k + args.shard_size, args.images)) for k in range(0, args.images, args.shard_size)]
    folders = [output_dir / f"shard_{k:05d}" for k in range(len(shards))]
    todo = [(shard, folder) for shard, folder in zip(shards, folders, strict=True) if not folder.is_dir()]
    if len(todo) < len(shards):
        print(f"{len(shards) - len(todo)} of {len(shards)} shards are there already")
    start, made = time.perf_counter(), 0
    context = multiprocessing.get_context("spawn")
    os.environ.update({f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")})  # one core per worker
    detects = args.keypoints == "detected"
    with ProcessPoolExecutor(args.workers, context, _start_worker, (args.body, photos, detects)) as pool:
        for shard, folder in todo:
            _make_shard(pool, args.seed, shard, folder, not args.labels_only)
            made += len(shard)
            print(f"{folder}: {len(shard)} pictures; {made / (time.perf_counter() - start):.1f} pictures/s", flush=True)
    parts = [load_annotations(folder / _ANNOTATIONS) for folder in folders]
    save_annotations(output_dir / _ANNOTATIONS, concatenate(parts))
    print(f"wrote {output_dir / _ANNOTATIONS}; its image_dir is {output_dir}")


def _find_photos(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"The folder of photos '{folder}' (--backgrounds) does not exist.")
    photos = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_EXTENSIONS)
    if not photos:
        raise InputError(f"The folder of photos '{folder}' holds no image ({', '.join(IMAGE_EXTENSIONS)}).")
    return photos


def _make_shard(pool: ProcessPoolExecutor, seed: int, shard: range, folder: Path, pictures: bool) -> None:
    """Make a shard in a hidden folder and give it its name when it is whole."""
    hidden = folder.with_name(f".{folder.name}")
    shutil.rmtree(hidden, ignore_errors=True)  # of a run that was killed
    hidden.mkdir()
    paths = [hidden / f"{k:06d}.jpg" for k in shard]
    made = pool.map(_make_picture, [seed] * len(shard), shard, paths if pictures else [None] * len(shard), chunksize=4)
    parts = [
        replace(people, image_names=np.full(len(people), f"{folder.name}/{path.name}"))
        for path, people in zip(paths, made, strict=True)
    ]
    save_annotations(hidden / _ANNOTATIONS, concatenate(parts))
    hidden.replace(folder)


def _start_worker(body: Path | None, photos: list[Path], detects: bool) -> None:
    """Set a worker up; it ends when the main process does, however that ends."""
    global _maker, _detector
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    cv2.setNumThreads(1)
    _maker = SceneMaker(load_body(body), photos)
    _detector = PoseDetector(threads=1) if detects else None


def _make_picture(seed: int, index: int, path: Path | None) -> Annotations:
    """Make one picture, and write it if it is given a path; its annotations."""
    image, people = _maker.make((seed, index))
    if path is not None:
        quality = np.random.default_rng((seed, index, 1)).integers(*_JPEG_QUALITY)
        write_image(path, image, int(quality))
    return people if _detector is None else as_detected(people, _detector(image))[1]


if __name__ == "__main__":
    cli.run(main)
