"""Contenders of `benchmark.py`: the data pipeline, and a torch DataLoader of the plain transforms, on the same JPEGs.

Both sides decode, augment (flip, scale, rotation, channel noise) by the same rules, warp once to 256x192, normalise and
make batches of 32 with their labels. The plain side decodes the whole picture, computes noise and normalisation in
NumPy, and loads in processes. A call is one pass over all pictures, its output the number of images that came. No
network runs here, so PyTorch's side may import `cliff_ms`.
"""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

PICTURES = 320
BATCH_SIZE = 32
CROP_HW = (256, 192)
Call = Callable[[], list[np.ndarray]]


def make_pictures(folder: Path) -> Call:
    """Not a contender: write pictures (1280x720, quality 90, about 200 kB each) and people of 520 to 700 px in them."""
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
    return lambda: []


def our_pipeline(folder: Path, workers: int) -> Call:
    """TrainDataset, loaded ahead in threads."""
    from cliff_ms.config import Config, DataConfig, ModelConfig, SourceConfig
    from cliff_ms.data.dataset import TrainDataset
    from cliff_ms.data.loader import load_batches

    source = SourceConfig(str(folder / "people.npz"), str(folder))
    data = DataConfig(train=(source,), batch_size=BATCH_SIZE)
    load = TrainDataset(Config(ModelConfig(crop_hw=CROP_HW), data)).batch
    batches = PICTURES // BATCH_SIZE
    return lambda: [np.array(sum(len(batch.inputs) for batch in load_batches(load, workers, 0, batches)))]


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
        from cliff_ms.data.annotation_files import load_annotations

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
