"""One rule that brings the motion of any skeleton to SMPL's 24 joints.

The global turn of a joint is D(t) = G(t) G0^T, where G(t) is the rotation of the source's bone and G0 the one that it
has when the source stands as SMPL does at rest. G0 = C^T T G_rest, where G_rest is the bone's rotation at the source's
own rest, C the smallest rotation that takes the body's bone to the source's bone there, and T a roll about the bone.
Relative to the parent, R = D_parent^T D.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.transform import Rotation

from cliff_ms.body.skinning import global_rotations
from cliff_ms.keypoints import SMPL24
from cliff_ms.synthetic import quaternions
from cliff_ms.synthetic.poses import limits
from poses.motion import Motion

# Joints whose bone is laid on the source's: the next joint along the limb. Not the ankle's: soles are flat at rest.
NEXT = {"hip": "knee", "knee": "ankle", "collar": "shoulder", "shoulder": "elbow", "elbow": "wrist"}
_HINGES = [
    (f"{side}_{upper}", f"{side}_{lower}", f"{side}_{end}")
    for side in ("left", "right")
    for upper, lower, end in (("hip", "knee", "ankle"), ("shoulder", "elbow", "wrist"))
]
_BENT = (0.15, 0.4)  # sine of the bend from which hinges are looked for, and from which they are trusted
_ARM = ("shoulder", "elbow", "wrist")
_CHAINS = (("pelvis", "spine1", "spine2", "spine3"), ("spine3", "neck", "head"))
_STEEP = 0.3  # horizontal part of the left axis below which the heading is read from the front
_HELD = {"neck": 0, "head": 0, "left_ankle": 10, "right_ankle": 10}  # degrees beyond the prior's limits


@dataclass(frozen=True)
class Rig:
    """How a source's skeleton stands for SMPL's.

    Attributes:
        bones: SMPL's joint -> the source's bone, for as many as the source has; 'left_' or 'right_' and all.
        rest: Bone -> its rotation (3, 3) at rest where the file's own rest is no pose of a person.
        roll: Radians by which elbow hinges are rolled forward of straight down while the source rests.
        rolls: Whether thighs and upper arms turn about themselves as their knees and elbows need; else they are turned
            so that these bend as hinges.
    """

    bones: dict[str, str]
    rest: dict[str, np.ndarray] = field(default_factory=dict)
    roll: float = 0.0
    rolls: bool = True


def retarget(motion: Motion, rig: Rig, joints: np.ndarray, parents: tuple[int, ...]) -> np.ndarray:
    """Bring motion to SMPL's joints.

    Args:
        motion: T frames.
        rig: Of the motion's skeleton.
        joints: (24, 3) m, the body's at rest.
        parents: Of the 24 joints.

    Returns:
        Rotations (T, 24, 3, 3) relative to the parent, the root's to an upright body that faces +z. Joints that the
        source lacks stay at rest, but for those of the spine and neck, which share the turn between their neighbours.
    """
    turns = {}
    for joint, bone in rig.bones.items():
        place = motion.bones.index(bone)
        start = rig.rest.get(bone, motion.rest[place])
        ahead = _bone(joint, rig)
        if ahead is not None:
            ours = joints[SMPL24.index(ahead[1])] - joints[SMPL24.index(ahead[0])]
            first, second = (motion.bones.index(rig.bones[end]) for end in ahead)
            # The wrist is laid on as its forearm is.
            forearm = rig.rest.get(rig.bones[ahead[0]], motion.rest[first])
            way = motion.positions[0, second] - motion.positions[0, first]
            theirs = forearm @ motion.rotations[0, first].T @ way
            start = smallest_rotation(ours, theirs).T @ _roll(joint, rig, theirs) @ start
        turns[joint] = motion.rotations[:, place] @ start.T
    for chain in _CHAINS:
        _share(turns, chain)
    whole = np.empty((len(motion.rotations), 24, 3, 3))
    local = np.empty_like(whole)
    for index, (joint, parent) in enumerate(zip(SMPL24, parents, strict=True)):
        whole[:, index] = turns.get(joint, whole[:, parent])
        local[:, index] = whole[:, parent].transpose(0, 2, 1) @ whole[:, index] if parent >= 0 else whole[:, index]
    if not rig.rolls:
        _roll_to_hinges(local, joints)
    _share_roll(local)
    _hold(local)
    return face_ahead(local)


def face_ahead(local: np.ndarray) -> np.ndarray:
    """Take the heading out of the root's rotation, (N, 24, 3, 3) -> (N, 24, 3, 3)."""
    left, front = local[:, 0, :, 0], local[:, 0, :, 2]
    steep = np.hypot(left[:, 0], left[:, 2]) < _STEEP
    heading = np.where(steep, np.arctan2(front[:, 0], front[:, 2]), np.arctan2(-left[:, 2], left[:, 0]))
    result = local.copy()
    result[:, 0] = Rotation.from_rotvec(-heading[:, None] * (0, 1, 0)).as_matrix() @ local[:, 0]
    return result


def furthest_off(motion: Motion, rig: Rig, local: np.ndarray, joints: np.ndarray, parents: tuple[int, ...]) -> float:
    """The largest angle in degrees between limbs of the source and those of the body posed by `local` (T, 24, 3, 3)."""
    turned = global_rotations(local, parents)
    pelvis = motion.bones.index(rig.bones["pelvis"])
    # Heading apart, the source's pelvis turns as ours does.
    to_ours = turned[:, 0] @ (motion.rotations[:, pelvis] @ motion.rest[pelvis].T).transpose(0, 2, 1)
    worst = 0.0
    for joint in rig.bones:
        ahead = _bone(joint, rig)
        if ahead is None or joint.endswith("wrist"):
            continue
        first, second = (SMPL24.index(end) for end in ahead)
        ours = turned[:, first] @ (joints[second] - joints[first])
        start, end = (motion.positions[:, motion.bones.index(rig.bones[name])] for name in ahead)
        theirs = (to_ours @ (end - start)[..., None])[..., 0]
        sine, cosine = np.linalg.norm(np.cross(ours, theirs), axis=1), (ours * theirs).sum(1)
        worst = max(worst, float(np.degrees(np.arctan2(sine, cosine)).max()))
    return worst


def smallest_rotation(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The rotation (3, 3) by the smallest angle that takes one direction (3,) to another."""
    axis = np.cross(start, end)
    sine = np.linalg.norm(axis)
    return Rotation.from_rotvec(axis / max(sine, 1e-12) * np.arctan2(sine, start @ end)).as_matrix()


def _bone(joint: str, rig: Rig) -> tuple[str, str] | None:
    """The two joints between which the bone lies that gives the joint its direction at rest."""
    side, _, part = joint.rpartition("_")
    if part == "wrist":
        return f"{side}_elbow", joint
    ahead = f"{side}_{NEXT.get(part)}"
    return (joint, ahead) if ahead in rig.bones else None


def _roll(joint: str, rig: Rig, bone: np.ndarray) -> np.ndarray:
    """T (3, 3): about the source's bone (3,), counted about +x for either arm."""
    angle = rig.roll if joint.endswith(_ARM) else 0.0
    return Rotation.from_rotvec(bone / np.linalg.norm(bone) * np.copysign(angle, bone[0])).as_matrix()


def _share(turns: dict[str, np.ndarray], chain: tuple[str, ...]) -> None:
    """Give joints between two known ones of a chain equal parts of the turn between these; in place."""
    known = [place for place, joint in enumerate(chain) if joint in turns]
    for first, last in zip(known, known[1:], strict=False):
        base, top = turns[chain[first]], turns[chain[last]]
        way = Rotation.from_matrix(base.transpose(0, 2, 1) @ top).as_rotvec()
        for place in range(first + 1, last):
            part = Rotation.from_rotvec(way * (place - first) / (last - first))
            turns[chain[place]] = base @ part.as_matrix()


def _roll_to_hinges(local: np.ndarray, joints: np.ndarray) -> None:
    """Turn thighs and upper arms about themselves until shins fold straight back and forearms ahead; in place.

    The less a limb is bent, the less that is known, and the less is turned.
    """
    for upper, lower, end in _HINGES:
        first, second, third = (SMPL24.index(joint) for joint in (upper, lower, end))
        bone, beyond = joints[second] - joints[first], joints[third] - joints[second]
        bone = bone / np.linalg.norm(bone)
        folded = local[:, second] @ (beyond / np.linalg.norm(beyond))
        aim = np.array([0, 0, 1.0 if "shoulder" in upper else -1.0])
        angle = -np.arctan2(folded @ np.cross(bone, aim), folded @ aim)
        bend = np.linalg.norm(np.cross(bone, folded), axis=1)
        angle = angle * ((bend - _BENT[0]) / (_BENT[1] - _BENT[0])).clip(0, 1)
        turn = Rotation.from_rotvec(angle[:, None] * bone).as_matrix()
        local[:, first] = local[:, first] @ turn.transpose(0, 2, 1)
        local[:, second] = turn @ local[:, second]


def _share_roll(local: np.ndarray) -> None:
    """Give the elbow half of the hand's roll about the forearm, which else would wring the wrist; in place."""
    for side in ("left", "right"):
        elbow, wrist = SMPL24.index(f"{side}_elbow"), SMPL24.index(f"{side}_wrist")
        quats = Rotation.from_matrix(local[:, [wrist]].reshape(-1, 3, 3)).as_quat()[:, None]
        angle = quaternions.swing_twist(quats, np.array([0]))[:, 0, 0]
        half = Rotation.from_rotvec(angle[:, None] / 2 * (1, 0, 0)).as_matrix()
        local[:, elbow] = local[:, elbow] @ half
        local[:, wrist] = half.transpose(0, 2, 1) @ local[:, wrist]


def _hold(local: np.ndarray) -> None:
    """Bring neck, head and ankles near the prior's limits; in place.

    Some dancers' heads are tracked as fallen far back, and some of their feet as turned around.
    """
    joints = np.array([SMPL24.index(joint) for joint in _HELD])
    low, high, bone = (bound[joints - 1] for bound in limits())
    margin = np.radians(list(_HELD.values()))[:, None]
    quats = Rotation.from_matrix(local[:, joints].reshape(-1, 3, 3)).as_quat().reshape(-1, len(joints), 4)
    parts = np.clip(quaternions.swing_twist(quats, bone), low - margin, high + margin)
    local[:, joints] = quaternions.to_matrix(quaternions.from_swing_twist(parts, bone))
