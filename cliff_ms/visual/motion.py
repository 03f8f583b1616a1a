"""People through a video, and the files of motion that animation programs open: AMASS's npz and BVH.

Both hold one person, one sample per frame from the person's first to the last at a constant rate, no time stamps, and
y up: the camera frame turned half a turn about x (x right, y up, z towards the camera), so the camera is the origin and
up is the camera's up, not gravity's.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from cliff_ms.io.files import atomic_path

Y_UP = np.diag([1.0, -1.0, -1.0])  # turns the camera frame, whose y points down
_BODY_JOINTS = 22  # SMPL's but the two hands, which SMPL-H and SMPL-X replace by fingers
_SMPLX_JOINTS = 55
_AMASS_BETAS = 16


@dataclass(frozen=True, eq=False)
class Rig:
    """A body at rest in one shape. V vertices, F faces; y up, facing +z.

    Attributes:
        vertices: (V, 3) m.
        joints: (24, 3) m.
        weights: (V, 24) skinning weights.
        parents: (24,) parent of each joint, -1 for the root.
        faces: (F, 3), counter-clockwise seen from outside.
        joint_names: 24 names.
    """

    vertices: np.ndarray
    joints: np.ndarray
    weights: np.ndarray
    parents: np.ndarray
    faces: np.ndarray
    joint_names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Track:
    """One person through a video. T frames, of a photo one; they may have gaps.

    Attributes:
        number: The person's number, `track_id`.
        frames: (T,) int, ascending numbers of the video's frames.
        times: (T,) s, ascending.
        rotmats: (T, 24, 3, 3), relative to the parent joint, the root's to the camera (x right, y down, z forward).
        betas: (N,) shape coefficients.
        translation: (T, 3) m, what takes SMPL's output to the camera frame: the pelvis is at
            `rig.joints[0] + translation`, and the root turns about it.
        rig: The body at rest in the shape of `betas`.
        colour: RGB in [0, 1].
    """

    number: int
    frames: np.ndarray
    times: np.ndarray
    rotmats: np.ndarray
    betas: np.ndarray
    translation: np.ndarray
    rig: Rig
    colour: tuple[float, float, float]


class Motion(NamedTuple):
    """What a skeleton does, in the y-up frame above. T samples."""

    rotmats: np.ndarray  # (T, 24, 3, 3), relative to the parent joint, the root's to the frame
    pelvis: np.ndarray  # (T, 3) m


def y_up_motion(track: Track) -> Motion:
    """A track's motion in the y-up frame, at the track's own times."""
    rotmats = track.rotmats.astype(np.float64)
    rotmats[:, 0] = Y_UP @ rotmats[:, 0]
    return Motion(rotmats, (track.rig.joints[0] + track.translation) @ Y_UP)


def at_constant_rate(track: Track, frame_rate: float) -> Motion:
    """A track's motion in the y-up frame, from its first frame to its last, with gaps filled.

    Rotations between two frames follow the shortest arc, places the straight line.

    Args:
        track: The track.
        frame_rate: Samples a second.
    """
    motion = y_up_motion(track)
    start, end = track.times[0], track.times[-1]
    if start == end:
        return motion
    samples = start + np.arange(round((end - start) * frame_rate) + 1) / frame_rate
    samples = samples.clip(start, end)  # of a variable rate, the last sample may lie past the last frame
    rotmats = [
        Slerp(track.times, Rotation.from_matrix(turns))(samples).as_matrix() for turns in motion.rotmats.swapaxes(0, 1)
    ]
    pelvis = np.stack([np.interp(samples, track.times, place) for place in motion.pelvis.T], -1)
    return Motion(np.stack(rotmats, 1), pelvis)


def write_amass(path: str | Path, track: Track, frame_rate: float, gender: str) -> None:
    """Write a track as AMASS lays out motion, for the SMPL-X add-ons of Blender and what else loads AMASS.

    Arrays, of T samples: `poses` (T, 165) axis-angle, rad: SMPL-X's 55 joints, the first 22 of which are SMPL's; jaw,
    eyes and fingers are at rest, and SMPL's two hands are left out. SMPL-H's 52 joints, AMASS's older layout, are the
    first 156 columns. `root_orient` (T, 3) and `pose_body` (T, 63) are the first 66. `trans` (T, 3) m is added to the
    model's output. `betas` (16,) are the body's own, padded with zeros. `gender`; `mocap_framerate` and
    `mocap_frame_rate`, the two spellings of AMASS's releases.

    The frame is SMPL's own, y up. AMASS's is z up, so the add-ons' format 'AMASS' lays bodies on their backs: choose
    'SMPL-X' (also called 'Blender').

    Args:
        path: File to write.
        track: The track.
        frame_rate: Samples a second. A rate within half a percent of a whole number is stated as that number: the
            add-ons cut 29.97 to 29 and refuse that as below 30.
        gender: 'neutral', 'male' or 'female'.
    """
    rotmats, pelvis = at_constant_rate(track, frame_rate)
    poses = np.zeros((len(pelvis), _SMPLX_JOINTS, 3), np.float32)
    poses[:, :_BODY_JOINTS] = Rotation.from_matrix(rotmats[:, :_BODY_JOINTS].reshape(-1, 3, 3)).as_rotvec().reshape(
        len(pelvis), _BODY_JOINTS, 3
    )  # fmt: skip
    poses = poses.reshape(len(pelvis), -1)
    betas = np.zeros(max(_AMASS_BETAS, len(track.betas)), np.float32)
    betas[: len(track.betas)] = track.betas
    whole = round(frame_rate)
    rate = float(whole) if abs(frame_rate - whole) < 0.005 * frame_rate else frame_rate
    with atomic_path(path) as unfinished:
        np.savez_compressed(
            unfinished,
            poses=poses,
            root_orient=poses[:, :3],
            pose_body=poses[:, 3 : 3 * _BODY_JOINTS],
            trans=(pelvis - track.rig.joints[0]).astype(np.float32),
            betas=betas,
            gender=np.array(gender),
            mocap_framerate=np.array(rate),
            mocap_frame_rate=np.array(rate),
        )


def write_bvh(path: str | Path, track: Track, frame_rate: float) -> None:
    """Write a track as BVH: SMPL's joints by name, lengths in cm of the track's shape at rest, y up.

    The root's position is absolute. Rotations are relative to the parent, degrees, in the order Z X Y. The hands, the
    head and the feet go on in the direction of the bone before, to where their skin ends.

    Args:
        path: File to write.
        track: The track.
        frame_rate: Samples a second.
    """
    rotmats, pelvis = at_constant_rate(track, frame_rate)
    order, lines = _hierarchy(track.rig)
    angles = np.degrees(_smooth_zxy(rotmats))[:, order]
    rows = np.concatenate([100 * pelvis, angles.reshape(len(angles), -1)], 1)
    lines += ["MOTION", f"Frames: {len(rows)}", f"Frame Time: {1 / frame_rate:.9f}"]
    with atomic_path(path) as unfinished:
        np.savetxt(unfinished, rows, "%.5f", header="\n".join(lines), comments="")


def _hierarchy(rig: Rig) -> tuple[list[int], list[str]]:
    """The joints in the order of BVH, which is depth first, and the lines of the skeleton."""
    order: list[int] = []
    lines = ["HIERARCHY"]

    def add(joint: int, depth: int) -> None:
        order.append(joint)
        indent, inner = "\t" * depth, "\t" * (depth + 1)
        parent = rig.parents[joint]
        offset = rig.joints[joint] - rig.joints[parent] if depth else np.zeros(3)
        channels = "3 Zrotation Xrotation Yrotation"
        if not depth:
            channels = "6 Xposition Yposition Zposition Zrotation Xrotation Yrotation"
        lines.append(f"{indent}{'JOINT' if depth else 'ROOT'} {rig.joint_names[joint]}")
        lines.extend([f"{indent}{{", f"{inner}OFFSET {_cm(offset)}", f"{inner}CHANNELS {channels}"])
        children = np.flatnonzero(rig.parents == joint)
        for child in children:
            add(int(child), depth + 1)
        if not len(children):
            skin = rig.vertices[rig.weights.argmax(1) == joint] - rig.joints[joint]
            along = offset / np.linalg.norm(offset)
            tip = along * np.max(skin @ along, initial=0)
            lines.extend([f"{inner}End Site", f"{inner}{{", f"{inner}\tOFFSET {_cm(tip)}", f"{inner}}}"])
        lines.append(f"{indent}}}")

    add(0, 0)
    return order, lines


def _cm(offset: np.ndarray) -> str:
    return " ".join(f"{100 * value:.5f}" for value in offset)


def _smooth_zxy(rotmats: np.ndarray) -> np.ndarray:
    """Angles a, b, c (T, J, 3), rad, with R = Rz(a) Rx(b) Ry(c), each near that of the sample before.

    By hand, because at b = 90 degrees, a thigh of someone who sits, the angles must still give R.
    """
    a = np.arctan2(-rotmats[..., 0, 1], rotmats[..., 1, 1])
    b = np.arctan2(rotmats[..., 2, 1], np.hypot(rotmats[..., 0, 1], rotmats[..., 1, 1]))
    # First row of (Rz Rx)^T R = Ry, which holds for any a if cos b is 0.
    sin, cos = np.sin(a), np.cos(a)
    c = np.arctan2(
        cos * rotmats[..., 0, 2] + sin * rotmats[..., 1, 2], cos * rotmats[..., 0, 0] + sin * rotmats[..., 1, 0]
    )
    angles = np.stack([a, b, c], -1)
    others = np.stack([a + np.pi, np.pi - b, c + np.pi], -1)  # the same rotations
    for now in range(1, len(angles)):
        before = angles[now - 1]
        near, far = (
            turned[now] + 2 * np.pi * np.round((before - turned[now]) / (2 * np.pi)) for turned in (angles, others)
        )
        nearer = np.abs(near - before).sum(-1) <= np.abs(far - before).sum(-1)
        angles[now] = np.where(nearer[:, None], near, far)
    return angles
