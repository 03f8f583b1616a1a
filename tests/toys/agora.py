"""A small AGORA as it is downloaded: dataframes, SMPL fits as PyTorch tensors and images, of people that are known.

Nothing of the package's reader is used: points go from the fits to the camera by the steps of the data set's own code.
"""

import pickle
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from tests.toys.reference import reference_smpl

# Image name -> focal length mm, position of the camera cm (Unreal's axes), yaw and pitch in degrees, extra height m.
CAMERAS = {
    "ag_validationset_3dpeople_bfh_archviz_5_10_cam01_00001": (18, (400, 225, 265), -135, 30, 0),
    "ag_validationset_renderpeople_body_hdri_00002": (50, (0, 0, 170), 0, 0, 0),
    "ag_validationset_renderpeople_bfh_flowers_5_15_00003": (28, (-300, 120, 20), 62.5, 0, -1.7),
}


@dataclass
class Person:
    """What is chosen of a person, and what follows: joints (45, 3), vertices (V, 3) m in the camera, joints2d px."""

    pose: np.ndarray  # (24, 3), of the fit
    betas: np.ndarray
    yaw: float
    where: tuple  # cm, Unreal's axes
    occlusion: float = 10.0
    valid: bool = True
    kid: bool = False
    joints: np.ndarray = None
    vertices: np.ndarray = None
    joints2d: np.ndarray = None
    to_camera: np.ndarray = None


def make_people(body, name, rng, count=3):
    """People in front of one of CAMERAS, some of them partly outside the image."""
    focal_mm, position, yaw, pitch, height = CAMERAS[name]
    focal, people = focal_mm / 36 * 3840, []
    for k in range(count):
        pose = rng.normal(0, 0.15, (24, 3))
        person = Person(pose, rng.normal(0, 0.5, 10), float(rng.uniform(-180, 180)), (0, 0, 0))
        camera = Rotation.from_euler("x", pitch, degrees=True) * Rotation.from_euler("y", -yaw, degrees=True)
        origin = _to_opencv(position) / 100 + [0, height, 0]
        goal = np.array([(k - 1) * 1.2, 0.6, 6.0 + k])  # of the fit's origin, in the camera
        world = camera.inv().apply(goal) + origin
        person.where = tuple(100 * np.array([world[2], world[0], -world[1]]))
        person.to_camera = (camera * Rotation.from_euler("y", person.yaw - 90, degrees=True)).as_matrix()
        vertices, joints = reference_smpl(body, person.betas, Rotation.from_rotvec(pose).as_matrix())
        person.joints, person.vertices = (
            camera.apply(
                Rotation.from_euler("y", person.yaw - 90, degrees=True).apply(points * [1, -1, -1])
                + _to_opencv(person.where) / 100
                - origin
            )
            for points in (joints, vertices)
        )
        person.joints2d = focal * person.joints[:, :2] / person.joints[:, 2:] + [1920, 1080]
        people.append(person)
    return people


def write_agora(root, images, number=0, split="validation", small=True):
    """Write a dataframe, its fits and its images.

    Args:
        root: The folder.
        images: Name of CAMERAS -> its people.
        number: Of the dataframe.
        split: 'train' or 'validation'.
        small: Images of 1280 x 720, else of 3840 x 2160.
    """
    for folder in ("SMPL", "images", "smpl_gt/set"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    rows = []
    for name, people in images.items():
        fits = [f"smpl_gt/set/{name}_{k}.obj" for k in range(len(people))]
        rows.append(
            {
                "imgPath": f"{name}.png",
                "camX": float(CAMERAS[name][1][0]),
                "camY": float(CAMERAS[name][1][1]),
                "camZ": float(CAMERAS[name][1][2]),
                "camYaw": float(CAMERAS[name][2]),
                "X": [p.where[0] for p in people],
                "Y": [p.where[1] for p in people],
                "Z": [p.where[2] for p in people],
                "Yaw": [p.yaw for p in people],
                "gender": ["female"] * len(people),
                "kid": [p.kid for p in people],
                "occlusion": [p.occlusion for p in people],
                "isValid": [p.valid for p in people],
                "gt_path_smpl": fits,
                "gt_joints_2d": [p.joints2d for p in people],
                "gt_joints_3d": [p.joints for p in people],
                "gt_verts": [p.vertices for p in people],
            }
        )
        for fit, person in zip(fits, people, strict=True):
            write_fit((root / fit).with_suffix(".pkl"), person)
        suffix, size = ("_1280x720", (720, 1280)) if small else ("", (2160, 3840))
        cv2.imwrite(str(root / "images" / f"{name}{suffix}.png"), np.full((*size, 3), 90, np.uint8))
    write_dataframe(root / "SMPL" / f"{split}_{number}_withjv.pkl", rows)


def write_fit(path: Path, person):
    """As SMPL-X's transfer tool writes a fit; a kid has an 11th beta."""
    import torch

    arrays = {
        "root_pose": person.pose[None, :1],
        "body_pose": person.pose[None, 1:],
        "betas": np.append(person.betas, 0.4)[None] if person.kid else person.betas[None],
        "translation": np.zeros((1, 3)),
    }
    tensors = {key: torch.tensor(array, dtype=torch.float32, requires_grad=True) for key, array in arrays.items()}
    path.write_bytes(pickle.dumps(tensors))


def write_dataframe(path: Path, rows, protocol=4):
    """A DataFrame of objects as pandas 1.0 pickles it, without pandas (compare golden/dataframe_pandas_1.0.pkl)."""
    names = np.array(list(rows[0]), object)
    values = np.empty((len(names), len(rows)), object)
    for column, name in enumerate(names):
        for index, row in enumerate(rows):
            values[column, index] = row[name]

    def new_index(cls, state):
        raise NotImplementedError

    new_index.__module__, new_index.__qualname__ = "pandas.core.indexes.base", "_new_Index"
    index_class = type("Index", (), {"__module__": "pandas.core.indexes.base"})
    index_class.__reduce__ = lambda self: (new_index, (index_class, self.content))
    manager_class = type("BlockManager", (), {"__module__": "pandas.core.internals.managers"})
    frame_class = type("DataFrame", (), {"__module__": "pandas.core.frame"})
    for each in (manager_class, frame_class):
        each.__getstate__ = lambda self: self.content

    def make(cls, content):
        instance = cls()
        instance.content = content
        return instance

    axes = [make(index_class, {"data": data, "name": None}) for data in (names, np.arange(len(rows)))]
    blocks = [{"values": values, "mgr_locs": slice(0, len(names), 1)}]
    manager = make(manager_class, (axes, [values], axes[:1], {"0.14.1": {"axes": axes, "blocks": blocks}}))
    frame = make(frame_class, {"_data": manager, "_typ": "dataframe", "_metadata": [], "attrs": {}})
    modules = {name: ModuleType(name) for name in ("pandas", "pandas.core", "pandas.core.indexes")}
    for name, member in {
        "pandas.core.indexes.base": new_index,
        "pandas.core.internals.managers": manager_class,
        "pandas.core.frame": frame_class,
    }.items():
        modules[name] = ModuleType(name)
        setattr(modules[name], member.__qualname__, member)
    modules["pandas.core.indexes.base"].Index = index_class
    modules["pandas.core.internals"] = ModuleType("pandas.core.internals")
    with patch.dict(sys.modules, modules):
        path.write_bytes(pickle.dumps(frame, protocol))


def _to_opencv(point):
    """Unreal's (x forward, y right, z up) as (y, -z, x)."""
    x, y, z = point
    return np.array([y, -z, x], float)
