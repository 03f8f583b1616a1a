"""The zip for AGORA's leaderboard, in the format of github.com/pixelite1201/agora_evaluation."""

import pickle
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from cliff_ms.data.readers.agora import image_stem
from cliff_ms.evaluation.agora import AgoraPrediction, check_prediction, large_joints2d
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import atomic_path


def write_submission(path: str | Path, images: Iterable[tuple[str, AgoraPrediction]]) -> int:
    """Write the zip for AGORA's leaderboard: check_pred_format.py and docs/prediction_format.md, SMPL parameters.

    It holds `predictions/{image}_personId_{k}.pkl` for each person: joints (K, 2) in px of the large image, params
    with transl (1, 3), betas (1, 10), global_orient (1, 1, 3, 3) and body_pose (1, 23, 3, 3), and pose2rot False. All
    are of the neutral adult model, as in CLIFF. NumPy 1 and 2 can read it.

    Args:
        path: Name that ends in '.zip'.
        images: Name of an image, of either size, and what was predicted in it.

    Returns:
        How many people were written.

    Raises:
        InputError: An image that comes twice or has a name that the leaderboard cannot read, nobody at all, or a
            folder that cannot be written.
        ValueError: An array of another shape, or one that is not finite.
    """
    seen, count = set(), 0
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, prediction in images:
            stem = image_stem(name)
            if stem in seen or "." in stem:
                why = "comes twice, perhaps in both sizes" if stem in seen else "has more than one dot in its name"
                raise InputError(f"AGORA's submission: the image '{name}' {why}.")
            seen.add(stem)
            for k, person in enumerate(_parameters(prediction)):
                archive.writestr(f"predictions/{stem}_personId_{k}.pkl", _portable(pickle.dumps(person, 2)))
                count += 1
        if not count:
            raise InputError("AGORA's submission: nobody was found in any image, and an empty zip is refused.")
    return count


def _parameters(prediction: AgoraPrediction) -> list[dict]:
    """What the leaderboard reads of each person; types as in its sample_pred_format/smpl_param_rm_personId_0.pkl."""
    check_prediction(prediction)
    count, joints2d = len(prediction), large_joints2d(prediction)
    params = {
        "transl": prediction.translation.reshape(count, 1, 3),
        "betas": prediction.betas.reshape(count, 1, 10),
        "global_orient": prediction.rotmats[:, :1].reshape(count, 1, 1, 3, 3),
        "body_pose": prediction.rotmats[:, 1:].reshape(count, 1, 23, 3, 3),
    }
    params = {name: array.astype(np.float32) for name, array in params.items()}
    if not all(np.isfinite(array).all() for array in params.values()):
        raise ValueError("AGORA's submission takes finite parameters only.")
    return [
        {"joints": joints2d[k], "params": {name: array[k] for name, array in params.items()}, "pose2rot": False}
        for k in range(count)
    ]


def _portable(data: bytes) -> bytes:
    """A pickle of protocol 2 that names NumPy's module as NumPy 1 calls it, which NumPy 2 knows too."""
    return data.replace(b"cnumpy._core.", b"cnumpy.core.")
