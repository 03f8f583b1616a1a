"""Read the MPFB2 assets: base mesh, mirror table, skinning weights and morph targets.

Lengths are metres from here on (the files are in decimetres). Frame: x to the person's left, y up, z forward.
"""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

MIRROR = np.array([-1.0, 1.0, 1.0])  # reflection in the plane x = 0
METRES = 0.1
SKIN_COUNT = 13380  # the first vertices are the closed skin; eyes, teeth, hair, clothes and joint cubes follow

JOINT_NAMES = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle",
    "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder",
    "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hand", "right_hand",
)  # fmt: skip
PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
MIRROR_JOINTS = np.array([0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22])

# Joint centres: means of the small "joint cubes" of the base mesh; {} is l or r.
JOINT_CUBES = {
    "pelvis": ("pelvis", "spine-4"),
    "spine1": ("spine-3",),
    "spine2": ("spine-2",),
    "spine3": ("spine-1",),
    "neck": ("neck",),
    "head": ("head",),
    "hip": ("{}-upper-leg",),
    "knee": ("{}-knee",),
    "ankle": ("{}-ankle",),
    "foot": ("{}-foot-1",),
    "collar": ("{}-clavicle", "{}-scapula"),
    "shoulder": ("{}-shoulder",),
    "elbow": ("{}-elbow",),
    "wrist": ("{}-hand",),
    "hand": ("{}-finger-2-1", "{}-finger-3-1", "{}-finger-4-1", "{}-finger-5-1"),
}
# Behind the 24 joints: the knuckles of index and little finger, which give the hand its roll.
KNUCKLE_CUBES = ("l-finger-2-1", "l-finger-5-1", "r-finger-2-1", "r-finger-5-1")

# Bones of the artists' rig, by the beginning of the name -> our joint. First match wins; what is left is the face.
BONE_JOINTS = (
    (("root", "pelvis", "spine05", "spine04"), "pelvis"),
    (("spine03",), "spine1"),
    (("spine02",), "spine2"),
    (("spine01", "breast"), "spine3"),
    (("neck",), "neck"),
    (("clavicle", "shoulder01"), "collar"),
    (("upperarm",), "shoulder"),
    (("lowerarm",), "elbow"),
    (("wrist", "metacarpal", "finger1-1"), "wrist"),
    (("finger",), "hand"),
    (("upperleg",), "hip"),
    (("lowerleg",), "knee"),
    (("foot",), "ankle"),
    (("toe",), "foot"),
    (("",), "head"),
)


@dataclass(frozen=True)
class BaseMesh:
    """The neutral base mesh of the assets.

    Attributes:
        vertices: (19158, 3) float64 m, skin first, helpers behind; exactly mirror-symmetric.
        mirror: (19158,) int, the index of every vertex's mirror image.
        quads: (13378, 4) int, faces of the skin, counter-clockwise seen from outside.
        eyes: (E, 4) int, faces of the eyeballs.
        weights: (13380, 24) float64 skinning weights of the skin; rows sum to 1.
        to_points: (13380 + 28, 19158) sparse; takes vertices to the skin, 24 joint centres and 4 knuckles.
    """

    vertices: np.ndarray
    mirror: np.ndarray
    quads: np.ndarray
    eyes: np.ndarray
    weights: np.ndarray
    to_points: csr_matrix


def required_files(folder: Path) -> dict[str, Path]:
    """Name the single files that a build reads; the targets are found by their names below `targets/`."""
    return {
        "base": folder / "3dobjs/base.obj",
        "weights": folder / "rigs/standard/weights.default.json",
        "mirror": folder / "mesh_metadata/hm08.mirror",
        "groups": folder / "mesh_metadata/basemesh_vertex_groups.json",
        "license": folder / "LICENSE.md",
    }


def read_base_mesh(folder: Path) -> BaseMesh:
    """Read the base mesh, its mirror table and its skinning weights folded onto 24 joints.

    Args:
        folder: The `mpfb2` folder.

    Returns:
        The base mesh, in metres.

    Raises:
        ValueError: A bone belongs to no joint, or the weights do not sum to 1.
    """
    files = required_files(folder)
    vertices, quads = _read_obj(files["base"])
    # A row of the mirror table: vertex, its mirror image, side.
    mirror = np.array([line.split()[1] for line in files["mirror"].read_text().splitlines() if line], dtype=int)
    groups = json.loads(files["groups"].read_text())
    eye_vertices = np.concatenate([_ids(groups[f"helper-{side}-eye"]) for side in "lr"])
    return BaseMesh(
        vertices=vertices,
        mirror=mirror,
        quads=quads[(quads < SKIN_COUNT).all(1)],
        eyes=quads[np.isin(quads, eye_vertices).all(1)],
        weights=_read_weights(files["weights"]),
        to_points=_points_matrix(groups, len(vertices)),
    )


def read_target(path: Path, mesh: BaseMesh) -> np.ndarray:
    """Read one morph target and average it with its mirror image, from which it is up to 12 mm off.

    Args:
        path: A `.target.gz` file: rows of vertex, dx, dy, dz in decimetres.
        mesh: The base mesh.

    Returns:
        (13380 + 28, 3) float32 m, the offsets of skin, joint centres and knuckles.
    """
    with gzip.open(path, "rt") as stream:
        rows = np.array(stream.read().split(), dtype=np.float64).reshape(-1, 4)  # a few targets are empty
    offsets = np.zeros_like(mesh.vertices)
    offsets[rows[:, 0].astype(int)] = rows[:, 1:] * METRES
    offsets = 0.5 * (offsets + offsets[mesh.mirror] * MIRROR)
    return (mesh.to_points @ offsets).astype(np.float32)


def side_names(name: str) -> tuple[str, ...]:
    """Give the joints that a side-less name stands for: `hip` -> `left_hip`, `right_hip`; `neck` -> `neck`."""
    return (name,) if name in JOINT_NAMES else (f"left_{name}", f"right_{name}")


def _read_obj(path: Path) -> tuple[np.ndarray, np.ndarray]:
    vertices, quads = [], []
    for line in path.read_text().splitlines():
        kind, *values = line.split() or [""]
        if kind == "v":
            vertices.append([float(value) for value in values[:3]])
        elif kind == "f":
            quads.append([int(value.split("/")[0]) - 1 for value in values])
    return np.array(vertices) * METRES, np.array(quads)


def _read_weights(path: Path) -> np.ndarray:
    weights = np.zeros((SKIN_COUNT, len(JOINT_NAMES)))
    for bone, pairs in json.loads(path.read_text())["weights"].items():
        joint = next(joint for starts, joint in BONE_JOINTS if bone.startswith(starts))
        names = side_names(joint)
        column = JOINT_NAMES.index(names[-1] if bone.endswith(".R") else names[0])
        for vertex, weight in pairs:
            if vertex < SKIN_COUNT:
                weights[vertex, column] += weight
    if np.abs(weights.sum(1) - 1).max() > 1e-3:
        raise ValueError(f"The skinning weights in {path} do not sum to 1 on every skin vertex.")
    return weights / weights.sum(1, keepdims=True)


def _points_matrix(groups: dict, vertex_count: int) -> csr_matrix:
    cubes = {}
    for joint, names in JOINT_CUBES.items():
        for side, full in zip("lr", side_names(joint), strict=False):
            cubes[full] = [name.format(side) for name in names]
    members = [[vertex] for vertex in range(SKIN_COUNT)]
    for names in [cubes[joint] for joint in JOINT_NAMES] + [[name] for name in KNUCKLE_CUBES]:
        members.append(np.concatenate([_ids(groups[f"joint-{name}"]) for name in names]))
    counts = np.array([len(ids) for ids in members])
    data = np.repeat(1.0 / counts, counts)
    return csr_matrix((data, np.concatenate(members), np.append(0, counts.cumsum())), (len(members), vertex_count))


def _ids(ranges: list[list[int]]) -> np.ndarray:
    return np.concatenate([np.arange(first, last + 1) for first, last in ranges])
