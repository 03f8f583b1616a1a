"""The contenders of `benchmark.py`'s section 'video': `demo.py` on a film of two people, and a plain script.

The script gets the keypoints as its network reads them. For each frame in turn it decodes with OpenCV, runs network and
body in PyTorch, fills the faces from the farthest to the nearest with OpenCV, and encodes with OpenCV. It numbers,
fits, smooths and exports nothing.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

PEOPLE, FPS, IMG_HW = 2, 30.0, (720, 1280)
LENGTHS = (100, 1000)  # frames
Call = Callable[[], list[np.ndarray]]


def prepare_video(folder: Path) -> Call:
    """Not a contender: films of a photo that moves, its people's OpenPose files, and what the script reads."""
    import cv2

    from cliff_ms.camera import bbox_info, estimate_focal_length
    from cliff_ms.data.crop import box_to_crop, normalize_keypoints
    from cliff_ms.data.detections import boxes_from_keypoints
    from cliff_ms.io.images import read_image
    from cliff_ms.io.video import VideoWriter
    from cliff_ms.weights.checkpoint import load_weights
    from cliff_ms.zoo import EXAMPLES, bundled_model

    told = json.loads((EXAMPLES / "people_keypoints.json").read_text())["people"][:PEOPLE]
    people = np.array([person["pose_keypoints_2d"] for person in told], float).reshape(PEOPLE, -1, 3)
    image = read_image(EXAMPLES / "people.jpg")[:, : int(people[..., 0].max()) + 50]  # without the others
    frame = np.arange(LENGTHS[-1])
    shift = np.stack([290 + 60 * np.sin(frame / 24), 20 * np.sin(frame / 15)], -1)
    keypoints = np.tile(people, (len(frame), 1, 1, 1))
    keypoints[..., :2] += shift[:, None, None]
    for length in LENGTHS:
        files = folder / f"keypoints_{length}"
        files.mkdir()
        with VideoWriter(folder / f"film_{length}.mp4", FPS, IMG_HW) as writer:
            for k in range(length):
                move = np.array([[1, 0, shift[k, 0]], [0, 1, shift[k, 1]]])
                writer.write(cv2.warpAffine(image, move, IMG_HW[::-1], borderMode=cv2.BORDER_REPLICATE))
                rows = [{"pose_keypoints_2d": person.ravel().tolist()} for person in keypoints[k]]
                (files / f"film_{length}_{k:012d}_keypoints.json").write_text(json.dumps({"people": rows}))
    flat = keypoints[: LENGTHS[0]].reshape(-1, *people.shape[1:])
    weights = load_weights(bundled_model())
    center, size = box_to_crop(boxes_from_keypoints(flat, "the film"), weights.meaning.model.crop_hw)
    img_hw = np.tile(np.float64(IMG_HW), (len(flat), 1))
    focal_length = estimate_focal_length(img_hw)
    location = bbox_info(center, size, img_hw, focal_length, weights.meaning.model.bbox_norm)
    inputs = np.concatenate([normalize_keypoints(flat, center, size).reshape(len(flat), -1), location], 1)
    arrays = {f"weights/{name}": array for name, array in weights.arrays.items()}
    np.savez(folder / "film.npz", inputs=inputs, center=center, size=size, focal_length=focal_length, **arrays)
    return lambda: []


def demo_video(folder: Path, frames: int, found: bool, engine: str) -> Call:
    """All that the command does; the output is the number of frames and of rows."""
    from cliff_ms import load_body, runtime
    from cliff_ms.data.detections import read_keypoints
    from cliff_ms.inference.demo import Demo
    from cliff_ms.inference.detectors import load_detector
    from cliff_ms.inference.finder import Finder
    from cliff_ms.inference.predict import load_predictor
    from cliff_ms.zoo import bundled_model

    runtime.setup_device("CPU")
    files, body = folder / f"keypoints_{frames}", load_body()
    find = Finder(detector=load_detector("bundled")) if found else Finder(keypoints=read_keypoints(files))
    predictor = load_predictor(bundled_model(), body, engine, PEOPLE)
    out = folder / f"demo_{os.getpid()}"
    out.mkdir()

    def call() -> list[np.ndarray]:
        Demo(predictor, body, find, out).run([folder / f"film_{frames}.mp4"], "")
        frame = np.load(out / f"film_{frames}_cliff.npz")["frame"]
        return [np.array([frame.max() + 1, len(frame)])]

    return call


def script_video(folder: Path, frames: int, found: bool, engine: str) -> Call:
    """The plain script; it does not find people and knows one engine."""
    import cv2
    import torch
    from benchmark_contenders import smplx_body
    from torch_reference import CLIFF, KeypointEncoder

    made = np.load(folder / "film.npz")
    state = {name.removeprefix("weights/"): torch.from_numpy(made[name]) for name in made if name.startswith("weights")}
    features, width = state["encoder.stem.weight"].shape
    net = CLIFF(KeypointEncoder(width, features), features, len(state["regressor.fc1.weight"]))
    names = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    renamed = {}
    for name, value in state.items():
        first, _, last = name.removeprefix("regressor.").rpartition(".")
        renamed[f"{first}.{names.get(last, last)}".lstrip(".")] = value
    assert not net.load_state_dict(renamed, strict=False).unexpected_keys  # noqa: S101
    net.eval()
    smpl, body = smplx_body(PEOPLE)
    faces = body["f"].astype(int)
    inputs = torch.from_numpy(np.float32(made["inputs"])).reshape(frames, PEOPLE, -1)
    focal_length = float(made["focal_length"][0])
    center, size = (made[name].reshape(frames, PEOPLE, -1) for name in ("center", "size"))
    light = np.array([-0.35, -0.6, -0.72]) / np.linalg.norm([-0.35, -0.6, -0.72])

    @torch.inference_mode()
    def call() -> list[np.ndarray]:
        reader = cv2.VideoCapture(str(folder / f"film_{frames}.mp4"))
        writer = cv2.VideoWriter(str(folder / "script.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), FPS, IMG_HW[::-1])
        for k in range(frames):
            image = reader.read()[1]
            rotmats, betas, camera = net(inputs[k], inputs[k, :, -3:])
            posed = smpl(betas=betas, global_orient=rotmats[:, :1], body_pose=rotmats[:, 1:], pose2rot=False)
            depth = 2 * focal_length / (camera[:, :1].numpy() * size[k])
            offset = (center[k] - np.array(IMG_HW[::-1]) / 2) * depth / focal_length
            place = np.concatenate([camera[:, 1:].numpy() + offset, depth], 1)
            corners = (posed.vertices.numpy() + place[:, None])[:, faces].reshape(-1, 3, 3)
            normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
            normals /= np.linalg.norm(normals, axis=1, keepdims=True)
            shades = 230 * (0.4 + 0.6 * (normals @ light).clip(0))
            pixels = focal_length * corners[..., :2] / corners[..., 2:] + np.array(IMG_HW[::-1]) / 2
            for face in np.argsort(-corners[..., 2].mean(1)):
                cv2.fillConvexPoly(image, pixels[face].astype(np.int32), (shades[face],) * 3)
            writer.write(image)
        writer.release()
        return [np.array([frames, frames * PEOPLE])]

    return call
