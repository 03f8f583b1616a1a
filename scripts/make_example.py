"""Make the picture that the quick start runs on: four people, posed by hand, in different places of the frame.

    python scripts/make_example.py [--output_dir model_zoo/examples]

Writes people.jpg, its boxes (people_boxes.json) and its 2D keypoints (people_keypoints.json, OpenPose's format). The
boxes are the extents of the rendered bodies, the keypoints their projected joints: nothing here was annotated.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from cliff_ms import SMPL, camera, load_body, runtime
from cliff_ms.body.files import Body
from cliff_ms.io.images import write_image
from cliff_ms.keypoints import EXTRA21, OPENPOSE25, SMPL24, SMPL45
from cliff_ms.visual.render import render_meshes

IMG_HW = (720, 1280)
FOCAL_LENGTH = 1100.0  # px
CAMERA_HEIGHT = 1.1  # m above the ground
# Per person: where the pelvis stands (x right, z forward, m), turn about the vertical (degrees, 0 faces the camera),
# betas, and the rotations of joints (degrees about x, y, z of the body at rest, which faces +z with y up).
PEOPLE = [
    dict(x=-1.85, z=4.2, turn=35, betas=[0.8, -0.5, 0.4], shirt=(0.72, 0.25, 0.22), trousers=(0.20, 0.23, 0.33),
         pose={"left_shoulder": (0, 0, -70), "right_shoulder": (0, 0, 70), "left_hip": (-28, 0, 0),
               "right_hip": (18, 0, 0), "left_knee": (12, 0, 0), "right_knee": (35, 0, 0), "left_elbow": (0, -15, 0),
               "right_elbow": (0, 30, 0)}),
    dict(x=-0.4, z=5.8, turn=-10, betas=[-0.6, 1.2, 0.1], shirt=(0.25, 0.45, 0.38), trousers=(0.45, 0.38, 0.30),
         pose={"left_shoulder": (0, 0, 55), "right_shoulder": (0, 0, 68), "left_elbow": (0, -20, 25),
               "right_elbow": (0, 20, 0), "spine2": (0, 0, -6)}),
    dict(x=1.05, z=3.9, turn=-60, betas=[0.2, 0.3, -0.9], shirt=(0.85, 0.72, 0.30), trousers=(0.16, 0.18, 0.20),
         pose={"left_shoulder": (0, -60, -25), "right_shoulder": (0, 60, 25), "left_hip": (-85, 0, 8),
               "right_hip": (-85, 0, -8), "left_knee": (95, 0, 0), "right_knee": (95, 0, 0), "spine1": (25, 0, 0),
               "left_ankle": (-12, 0, 0), "right_ankle": (-12, 0, 0)}),
    dict(x=2.35, z=4.25, turn=170, betas=[-0.2, -0.8, 0.6], shirt=(0.30, 0.36, 0.62), trousers=(0.36, 0.33, 0.36),
         pose={"left_shoulder": (0, 0, -62), "right_shoulder": (0, 25, 10), "right_elbow": (0, 95, 0),
               "left_elbow": (0, -25, 0), "head": (0, 20, 0)}),
]  # fmt: skip
SKIN = [(0.85, 0.66, 0.55), (0.55, 0.38, 0.28), (0.75, 0.56, 0.44), (0.42, 0.29, 0.22)]
HAIR, SHOES = (0.16, 0.11, 0.08), (0.12, 0.12, 0.13)


def main() -> None:
    """Pose, place, draw, and write the three files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output_dir", type=Path, default=Path("model_zoo/examples"))
    output_dir = parser.parse_args().output_dir
    output_dir.mkdir(parents=True, exist_ok=True)
    runtime.setup_device("CPU")
    body = load_body()
    vertices, joints = pose_people(body)
    meshes = [
        (v, paint(body, SKIN[k], person["shirt"], person["trousers"]))
        for k, (v, person) in enumerate(zip(vertices, PEOPLE, strict=True))
    ]
    image, _ = render_meshes(background(), meshes, body.faces, FOCAL_LENGTH)
    write_image(output_dir / "people.jpg", image)

    boxes = [[*v.min(0).round(1).tolist(), *v.max(0).round(1).tolist()] for v in in_image(vertices)]
    (output_dir / "people_boxes.json").write_text(json.dumps({"people.jpg": boxes}) + "\n")
    keypoints = in_image(joints)[
        :, [SMPL45.index(name) if name != "neck" else SMPL24.index("neck") for name in OPENPOSE25]
    ]
    people = [{"pose_keypoints_2d": np.c_[k, np.ones(len(k))].round(2).ravel().tolist()} for k in keypoints]
    (output_dir / "people_keypoints.json").write_text(json.dumps({"version": 1.3, "people": people}) + "\n")


def pose_people(body: Body) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (P, V, 3) and joints (P, 45, 3) in m, camera frame, everybody's lowest point on the ground."""
    from mindspore import Tensor

    rotmats = np.tile(np.eye(3, dtype=np.float32), (len(PEOPLE), len(SMPL24), 1, 1))
    betas = np.zeros((len(PEOPLE), 10), np.float32)
    for k, person in enumerate(PEOPLE):
        betas[k, : len(person["betas"])] = person["betas"]
        upright = Rotation.from_euler("x", 180, degrees=True)  # from the body's y up to the camera's y down
        rotmats[k, 0] = (upright * Rotation.from_euler("y", person["turn"], degrees=True)).as_matrix()
        for joint, angles in person["pose"].items():
            rotmats[k, SMPL24.index(joint)] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    vertices, joints = (t.asnumpy() for t in SMPL(body)(Tensor(betas), Tensor(rotmats)))
    place = np.array([[p["x"], 0, p["z"]] for p in PEOPLE], np.float32) - joints[:, 0]
    place[:, 1] = CAMERA_HEIGHT - vertices[:, :, 1].max(1)
    return vertices + place[:, None], joints + place[:, None]


def in_image(points: np.ndarray) -> np.ndarray:
    """(P, J, 3) m, camera -> (P, J, 2) px."""
    zero, focal = np.zeros((len(points), 3)), np.full(len(points), FOCAL_LENGTH)
    return camera.to_image(camera.project(points, zero, focal), np.array([IMG_HW] * len(points)))


def paint(body: Body, skin: tuple, shirt: tuple, trousers: tuple) -> np.ndarray:
    """Colours (V, 3): clothes by the joint that moves a vertex most, hair on the upper back of the head."""
    joint = np.array(SMPL24)[body.weights.argmax(1)]
    colours = np.tile(np.float32(skin), (body.vertex_count, 1))
    parts = {
        shirt: ("spine1", "spine2", "spine3", "left_collar", "right_collar", "left_shoulder", "right_shoulder"),
        trousers: ("pelvis", "left_hip", "right_hip", "left_knee", "right_knee"),
        SHOES: ("left_foot", "right_foot", "left_ankle", "right_ankle"),
    }
    for colour, names in parts.items():
        colours[np.isin(joint, names)] = colour
    nose = body.v_template[body.extra_vertex_ids[EXTRA21.index("nose")]]
    ear = body.v_template[body.extra_vertex_ids[EXTRA21.index("left_ear")]]
    height, depth = body.v_template[:, 1] - nose[1], body.v_template[:, 2] - ear[2]
    colours[(joint == "head") & ((height > 0.085) | ((depth < 0.01) & (height > -0.03)))] = HAIR
    return colours


def background() -> np.ndarray:
    """Sky over a tiled ground that meets it at the camera's horizon, (H, W, 3) uint8 RGB."""
    height, width = IMG_HW
    v, u = np.mgrid[:height, :width] + 0.5
    drop = v - height / 2  # px below the horizon
    depth = CAMERA_HEIGHT * FOCAL_LENGTH / np.maximum(drop, 1e-3)
    x = (u - width / 2) * depth / FOCAL_LENGTH
    tile = (np.floor(x) + np.floor(depth)) % 2
    fade = np.clip(depth / 40, 0, 1)[..., None]
    ground = np.where(tile[..., None] > 0, np.float64([0.58, 0.57, 0.54]), np.float64([0.53, 0.52, 0.50]))
    sky = np.float64([0.62, 0.72, 0.84]) + (v / height)[..., None] * np.float64([0.35, 0.28, 0.2])
    haze = np.float64([0.80, 0.86, 0.94])
    return (255 * np.where(drop[..., None] > 0, ground * (1 - fade) + haze * fade, sky).clip(0, 1)).astype(np.uint8)


if __name__ == "__main__":
    main()
