"""Where the files that come with the project are, in a checkout and in an installed package."""

from pathlib import Path

from cliff_ms.io.errors import InputError

_INSTALLED = Path(__file__).resolve().parent / "model_zoo"
MODEL_ZOO = _INSTALLED if _INSTALLED.is_dir() else _INSTALLED.parents[1] / "model_zoo"
BUNDLED_BODY = MODEL_ZOO / "body" / "neutral.npz"
BUNDLED_MODEL = MODEL_ZOO / "cliff_keypoints.safetensors"
PEOPLE_NETWORKS = MODEL_ZOO / "people"  # that find people and their joints in a photo
POSES = MODEL_ZOO / "poses"  # that people were recorded in: cmu.npz, free.npz
EXAMPLES = MODEL_ZOO / "examples"  # pictures, and boxes and 2D keypoints of the people in one of them
# Synthetic people that no bundled model was trained on, in drawn and in recorded poses: annotations.npz, pictures.
HELD_OUT = MODEL_ZOO / "heldout"
HELD_OUT_RECORDED = MODEL_ZOO / "heldout_recorded"


def bundled_model() -> Path:
    """The weights used when the user names none: a keypoint model (COCO-17 or OpenPose-25) trained on synthetic people.

    Raises:
        InputError: If this copy of the project lacks them.
    """
    if not BUNDLED_MODEL.is_file():
        raise InputError(
            f"The bundled model {BUNDLED_MODEL} is missing in this copy of the project: name weights with --ckpt, or "
            "get the file and its .json from the repository."
        )
    return BUNDLED_MODEL
