"""What stands for SMPL's joints in each source's skeleton."""

import numpy as np
from scipy.spatial.transform import Rotation

from poses.retarget import Rig

# Of Reallusion's rig at rest, the left side. Feet lie as they do where people stand still, turned as in others' files
# of the same clips.
_LEG_BONES = {"hip": (0, -1, 0), "knee": (0, -1, 0), "ankle": (0.17, -0.27, 0.95)}
_SIDES = {"left": ("l", "L", -1), "right": ("r", "R", 1)}


def _both(middle: dict[str, str], limbs: dict[str, str]) -> dict[str, str]:
    """Joint -> bone: those in the middle, and limbs with `{s}` for l or r and `{S}` for L or R."""
    sides = {
        f"{side}_{joint}": bone.format(s=small, S=large)
        for side, (small, large, _) in _SIDES.items()
        for joint, bone in limbs.items()
    }
    return middle | sides


# CMU's clips as BVH for Poser ("daz-friendly").
DAZ = Rig(
    _both(
        {"pelvis": "hip", "spine1": "abdomen", "spine3": "chest", "neck": "neck", "head": "head"},
        {
            "hip": "{s}Thigh", "knee": "{s}Shin", "ankle": "{s}Foot", "collar": "{s}Collar", "shoulder": "{s}Shldr",
            "elbow": "{s}ForeArm", "wrist": "{s}Hand",
        },
    ),
    roll=np.radians(30),  # CMU's elbows hinge about (0, -0.87, 0.5) at rest
)  # fmt: skip

# CMU's skeleton in the motion prediction benchmark.
BENCHMARK = Rig(
    {
        "pelvis": "0", "spine1": "13", "spine2": "14", "spine3": "15", "neck": "17", "head": "18",
        "left_hip": "2", "left_knee": "3", "left_ankle": "4", "left_foot": "5",
        "right_hip": "8", "right_knee": "9", "right_ankle": "10", "right_foot": "11",
        "left_collar": "20", "left_shoulder": "21", "left_elbow": "22", "left_wrist": "23",
        "right_collar": "29", "right_shoulder": "30", "right_elbow": "31", "right_wrist": "32",
    },
    # Its legs are 20 degrees apart at rest, and feet that stand still later are rolled by 15 of them.
    rest={
        bone: Rotation.from_euler("z", angle, degrees=True).as_matrix()
        for bone, angle in (("4", -15), ("5", -15), ("10", 15), ("11", 15))
    },
    roll=np.radians(30),
)  # fmt: skip

HUMANOID = Rig(
    _both({"pelvis": "root", "spine3": "chest", "head": "neck"}, {})
    | {f"{side}_{part}": f"{side}_{part}" for side in _SIDES for part in ("hip", "knee", "ankle", "shoulder", "elbow")}
    | {f"{side}_wrist": f"{side}_wrist" for side in _SIDES}
)

RIGIFY = Rig(
    _both(
        {
            "pelvis": "DEF-hips", "spine1": "DEF-spine.001", "spine2": "DEF-spine.002", "spine3": "DEF-spine.003",
            "neck": "DEF-neck", "head": "DEF-head",
        },
        {
            "hip": "DEF-thigh.{S}", "knee": "DEF-shin.{S}", "ankle": "DEF-foot.{S}", "foot": "DEF-toe.{S}",
            "collar": "DEF-shoulder.{S}", "shoulder": "DEF-upper_arm.{S}", "elbow": "DEF-forearm.{S}",
            "wrist": "DEF-hand.{S}",
        },
    ),
    rolls=False,
)  # fmt: skip

# MakeHuman's default skeleton, which is at rest with arms half lowered. Of its halved bones the outer one, which
# carries the roll of both.
MAKEHUMAN = Rig(
    _both(
        {"pelvis": "root", "spine1": "spine04", "spine2": "spine03", "spine3": "spine01", "neck": "neck02",
         "head": "head"},
        {
            "hip": "upperleg02.{S}", "knee": "lowerleg02.{S}", "ankle": "foot.{S}", "collar": "shoulder01.{S}",
            "shoulder": "upperarm02.{S}", "elbow": "lowerarm02.{S}", "wrist": "wrist.{S}",
        },
    ),
    rolls=False,
)  # fmt: skip
MAKEHUMAN_AXES = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # z up and facing -y, to y up and facing +z


def _reallusion() -> Rig:
    """Reallusion's rig: bones along their own y; the files hold no pose at rest, so it is stated here."""
    limbs = {
        "hip": "Thigh", "knee": "Calf", "ankle": "Foot", "collar": "Clavicle",
        "shoulder": "Upperarm", "elbow": "Forearm", "wrist": "Hand",
    }  # fmt: skip
    bones = _both(
        {"pelvis": "CC_Base_Hip", "spine3": "CC_Base_Spine02", "head": "CC_Base_Head"},
        {joint: f"CC_Base_{{S}}_{bone}" for joint, bone in limbs.items()},
    )
    # Chest, head and collar bones: as they are on average while subject 7 walks.
    rest = {
        "CC_Base_Spine02": Rotation.from_euler("x", -17, degrees=True).as_matrix(),
        "CC_Base_Head": Rotation.from_euler("x", 2, degrees=True).as_matrix(),
    }
    for side, (_, _, sign) in _SIDES.items():
        for joint, way in _LEG_BONES.items():
            rest[bones[f"{side}_{joint}"]] = _frame((-1, 0, 0), np.array(way) * (-sign, 1, 1))
        collar = Rotation.from_rotvec(np.array([-17, -7 * sign, 89 * sign]), degrees=True)
        rest[bones[f"{side}_collar"]] = collar.as_matrix()
        hinge = np.array([0.866, 0, -0.5 * sign])
        own = _frame(hinge, (0, 1, 0))
        arm = _frame((0, sign, 0), (-sign, 0, 0)) @ own.T
        for joint in ("shoulder", "elbow", "wrist"):
            rest[bones[f"{side}_{joint}"]] = arm
    return Rig(bones, rest)


def _frame(x: tuple | np.ndarray, y: tuple | np.ndarray) -> np.ndarray:
    """Rotation (3, 3) whose second column is along y, and the first as near to x as that allows."""
    second = np.asarray(y, np.float64) / np.linalg.norm(y)
    first = np.asarray(x, np.float64) - (np.asarray(x) @ second) * second
    first /= np.linalg.norm(first)
    return np.stack([first, second, np.cross(first, second)], -1)


REALLUSION = _reallusion()
