"""People who move, as files that animation programs open: AMASS's npz and BVH; `gltf` writes the third kind.

Frames: tracks are in the camera's, x right, y down, z forward, m; files are in one with y up and z towards the camera,
so that the camera stays at the origin and looks along -z.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from cliff_ms.io.files import atomic_path

Y_UP = np.diag([1.0, -1.0, -1.0])  # from the camera's frame to that of the files, a rotation
_BODY_JOINTS = 22  # of SMPL's 24, those that SMPL-H has in the same places; then come fingers
_SMPLH_JOINTS = 52
_STILL_FPS = 30.0


@dataclass(frozen=True, eq=False)
class Rig:
    """A body at rest, of one shape.

    Attributes:
        vertices: (V, 3) m.
        joints: (J, 3) m.
        weights: (V, J), of linear blend skinning.
        parents: Of the J joints, each before its children; -1 for the root.
        faces: (F, 3).
        names: Of the J joints.
    """

    vertices: np.ndarray
    joints: np.ndarray
    weights: np.ndarray
    parents: Sequence[int]
    faces: np.ndarray
    names: Sequence[str]


@dataclass(frozen=True, eq=False)
class Track:
    """One person through a video.

    Attributes:
        number: Who it is.
        times: (T,) s, ascending.
        rotmats: (T, J, 3, 3), relative to the parent, the root's to the camera.
        betas: (10,).
        translation: (T, 3) m; what the rig gives, turned about its root joint, is moved by it to the camera's frame.
        rig: The body.
        colour: RGB in [0, 1].
    """

    number: int
    times: np.ndarray
    rotmats: np.ndarray
    betas: np.ndarray
    translation: np.ndarray
    rig: Rig
    colour: tuple[float, float, float]

    @property
    def root(self) -> np.ndarray:
        """Where the root joint is, (T, 3) m, y up."""
        return (self.translation + self.rig.joints[0]) @ Y_UP.T

    @property
    def turns(self) -> np.ndarray:
        """The rotations with the root's to the frame of the files, (T, J, 3, 3)."""
        return np.concatenate([Y_UP @ self.rotmats[:, :1], self.rotmats[:, 1:]], 1)


def write_amass(path: str | Path, track: Track, gender: str = "neutral") -> None:
    """Write a track in the layout of AMASS, as SMPL's add-ons for Blender read it; y is up.

    Args:
        path: The .npz: `poses` (T, 156) axis-angle in rad, the root and the 21 joints of the body; fingers are at rest,
            for which SMPL has one joint; `trans` (T, 3) m, `betas` (10,), `gender`, `mocap_framerate`.
        track: The track.
        gender: Of the body.
    """
    rate, turns, root = _steady(track)
    poses = np.zeros((len(turns), _SMPLH_JOINTS, 3))
    poses[:, :_BODY_JOINTS] = (
        Rotation.from_matrix(turns[:, :_BODY_JOINTS].reshape(-1, 3, 3)).as_rotvec().reshape(-1, _BODY_JOINTS, 3)
    )
    with atomic_path(path) as unfinished:
        np.savez_compressed(
            unfinished,
            poses=poses.reshape(len(poses), -1),
            trans=root - track.rig.joints[0],
            betas=track.betas,
            gender=np.array(gender),
            mocap_framerate=np.array(rate),
            mocap_frame_rate=np.array(rate),  # as SMPL-X's add-on spells it
        )


def write_bvh(path: str | Path, track: Track) -> None:
    """Write a track as BVH: the bones of its own shape at rest, cm, y up.

    Args:
        path: The .bvh.
        track: The track.
    """
    rate, turns, root = _steady(track)
    rig = track.rig
    children = [[c for c, parent in enumerate(rig.parents) if parent == joint] for joint in range(len(rig.joints))]
    lines, order = ["HIERARCHY"], []

    def describe(joint: int, depth: int) -> None:
        order.append(joint)
        parent = rig.parents[joint]
        offset = 100 * (rig.joints[joint] - rig.joints[parent]) if depth else np.zeros(3)
        channels = ("3" if depth else "6 Xposition Yposition Zposition") + " Zrotation Xrotation Yrotation"
        tab = "\t" * depth
        lines.append(f"{tab}{'JOINT' if depth else 'ROOT'} {rig.names[joint]}")
        lines.append(f"{tab}{{\n{tab}\tOFFSET {_numbers(offset)}")
        lines.append(f"{tab}\tCHANNELS {channels}")
        for child in children[joint]:
            describe(child, depth + 1)
        if not children[joint]:  # a bone must end somewhere
            lines.append(f"{tab}\tEnd Site\n{tab}\t{{\n{tab}\t\tOFFSET {_numbers(offset / 2)}\n{tab}\t}}")
        lines.append(f"{tab}}}")

    describe(0, 0)
    angles = Rotation.from_matrix(turns[:, order].reshape(-1, 3, 3)).as_euler("ZXY", degrees=True)
    values = np.concatenate([100 * root, angles.reshape(len(turns), -1)], 1)
    lines += ["MOTION", f"Frames: {len(turns)}", f"Frame Time: {1 / rate:.8f}", *map(_numbers, values)]
    with atomic_path(path) as unfinished:
        unfinished.write_text("\n".join(lines) + "\n", encoding="ascii")


def _steady(track: Track) -> tuple[float, np.ndarray, np.ndarray]:
    """The track at one rate, as files need it that have no times: frames a second, `turns` and `root`."""
    if len(track.times) == 1:
        return _STILL_FPS, track.turns, track.root
    period = float(np.median(np.diff(track.times)))
    count = 1 + round((track.times[-1] - track.times[0]) / period)
    times = np.linspace(track.times[0], track.times[-1], count)
    joints = range(track.rotmats.shape[1])
    turns = [Slerp(track.times, Rotation.from_matrix(track.turns[:, joint]))(times).as_matrix() for joint in joints]
    root = np.stack([np.interp(times, track.times, column) for column in track.root.T], 1)
    return float((count - 1) / (times[-1] - times[0])), np.stack(turns, 1), root


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:.5f}" for value in values)
