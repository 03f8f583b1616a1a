"""What a training is validated on is there, or known to be missing, before it starts."""

import cv2
import numpy as np
import pytest

from cliff_ms.config import ModelConfig, SourceConfig
from cliff_ms.data.source import Source
from cliff_ms.io.errors import InputError
from cliff_ms.training.validation import rows_with_pictures


def test_pictures_that_are_missing(tmp_path, caplog):
    arrays = {
        "imgname": np.array(["0.png", "1.png", "2.png"]),
        "center": np.full((3, 2), 20.0),
        "scale": np.full(3, 0.2),
    }
    np.savez(tmp_path / "a.npz", **arrays)
    for name in ("0.png", "2.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((40, 40, 3), np.uint8))
    source = Source(
        SourceConfig(str(tmp_path / "a.npz"), str(tmp_path)), ModelConfig(crop_hw=(64, 48)), "data.val.image_dir"
    )
    with pytest.raises(InputError, match="data.val: 1 of the images of .*a.npz' are not there, such as .*1.png"):
        rows_with_pictures(source, skip=False)
    assert rows_with_pictures(source, skip=True).tolist() == [0, 2] and "they are left out" in caplog.text
