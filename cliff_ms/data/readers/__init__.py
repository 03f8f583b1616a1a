"""Raw downloads of data sets to the standard npz: one module for each, all with a function `read`.

`read(root, split, ...)` gives `rows.Part`s, which `rows.collect` reads one after the other.
"""

from collections.abc import Callable
from dataclasses import dataclass

from cliff_ms.data.readers import agora, coco, h36m, lsp, lspet, mpi_inf_3dhp, mpii, threedpw
from cliff_ms.data.readers.rows import Part


@dataclass(frozen=True)
class Dataset:
    """One data set that can be prepared.

    Attributes:
        read: Reads it: `read(root, split, **options)`.
        splits: Its splits, the default first.
        options: Names of `read`'s keyword arguments.
        takes_fits: Whether bodies that others fitted to its keypoints can be merged.
    """

    read: Callable[..., list[Part]]
    splits: tuple[str, ...]
    options: tuple[str, ...] = ()
    takes_fits: bool = False


DATASETS = {
    "3dpw": Dataset(threedpw.read, ("test", "val", "train"), ("body_dir", "boxes", "min_limbs", "image_scale")),
    "h36m": Dataset(h36m.read, ("test", "train"), ("fits", "extract", "spin_frames")),
    "mpi_inf_3dhp": Dataset(mpi_inf_3dhp.read, ("test", "train"), ("extract",), takes_fits=True),
    "coco": Dataset(coco.read, ("train", "val"), takes_fits=True),
    "mpii": Dataset(mpii.read, ("train", "val"), takes_fits=True),
    "lsp": Dataset(lsp.read, ("train", "test"), takes_fits=True),
    "lspet": Dataset(lspet.read, ("train",), takes_fits=True),
    "agora": Dataset(agora.read, ("validation", "train")),
}
