"""Key poses written by hand: what people do in photos, as joint rotations.

Angles are in degrees and positive in the direction that the name says. Directions are (outward, up, forward) in the
frame of the chest, so one line describes an arm of either side.
"""

from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from cliff_ms.keypoints import SMPL24

# A leg is (flexion, abduction, turn, twist, knee flexion, toes down): the thigh turns outward about its own axis
# (twist), is raised to the front (flexion) and to the side (abduction), then turned outward about the vertical (turn).
_LEG = (0, 3, 5, 0, 4, 0)
# An arm is (direction of the upper arm, direction of the forearm); the elbow is a hinge, so they fix its axis.
_ARM = ((0.17, -1, 0.02), (0.12, -1, 0.24))
_ARM_BACK = ((0.30, -0.85, -0.60), (0.20, -0.90, 0.15))
_ARM_FRONT = ((0.25, -0.90, 0.45), (0.02, -0.55, 0.85))
_ARM_OUT = ((1, -0.15, 0.10), (0.95, 0.0, 0.30))
_ARM_UP = ((0.35, 1, 0.10), (0.12, 1, 0.12))
_ARM_RUN_FRONT = ((0.25, -0.80, 0.50), (-0.25, 0.45, 0.85))
_ARM_RUN_BACK = ((0.35, -0.70, -0.70), (0.10, -0.60, 0.75))
_ARM_PROP_BACK = ((0.40, -0.85, -0.50), (0.25, -0.95, -0.35))
_ARM_ON_THIGH = ((0.25, -0.90, 0.40), (-0.02, -0.40, 0.95))
_ARM_AHEAD = ((0.20, -0.10, 1), (0.10, -0.02, 1))
_ARM_HIP = ((0.75, -0.75, -0.25), (-0.75, -0.55, 0.40))
_ARM_HOLD = ((0.25, -0.95, 0.15), (-0.30, 0.15, 0.85))

# name: weight, pelvis tilt (forward, to the left), trunk and head (forward, to the left, turn to the left), legs, arms.
# One leg or arm stands for both sides, two are left and right. `air` marks people with no foot on the ground.
_TABLE: dict[str, dict[str, Any]] = {
    "stand": dict(weight=4),
    "stand at ease": dict(weight=3, tilt=(0, 3), trunk=(2, -5, 3), head=(4, 3, 12),
                          legs=((14, 7, 12, 0, 24, -6), (-1, 4, 8, 0, 2, 0))),
    "stand apart": dict(weight=2, legs=((2, 12, 10, 0, 4, 0),)),
    "hands on hips": dict(weight=2, legs=((1, 9, 12, 0, 4, 0),), arms=(_ARM_HIP,)),
    "one hand on hip": dict(weight=2, tilt=(0, -3), trunk=(0, 4, 0), legs=((10, 6, 15, 0, 18, -5), _LEG),
                            arms=(_ARM_HIP, _ARM)),
    "arms crossed": dict(weight=2, trunk=(-2, 0, 0), arms=(
        ((0.25, -0.95, 0.40), (-0.85, 0.22, 0.45)), ((0.25, -0.95, 0.40), (-0.85, 0.02, 0.72)))),
    "hands in pockets": dict(weight=2, arms=(((0.38, -0.90, -0.22), (-0.02, -0.95, 0.35)),)),
    "hands behind": dict(weight=1, trunk=(-4, 0, 0), arms=(((0.42, -0.85, -0.40), (-0.45, -0.85, -0.15)),)),
    "hand to chin": dict(weight=1, head=(10, 0, 0), arms=(
        ((0.25, -0.90, 0.35), (-0.35, 0.75, 0.55)), ((0.25, -0.95, 0.25), (-0.90, 0.05, 0.45)))),
    "phone at ear": dict(weight=1.5, head=(0, 8, 5), arms=(((0.50, -0.65, 0.50), (-0.30, 0.92, 0.0)), _ARM)),
    "reading": dict(weight=2, head=(28, 0, 0), trunk=(6, 0, 0), arms=(((0.22, -0.95, 0.20), (-0.32, 0.40, 0.80)),)),
    "carrying": dict(weight=2, trunk=(-5, 0, 0), arms=(_ARM_HOLD,)),
    "talking": dict(weight=2, head=(0, 0, 15), arms=(((0.35, -0.90, 0.15), (0.10, 0.10, 0.95)), _ARM)),
    "waving": dict(weight=1.5, arms=(((0.85, 0.15, 0.15), (0.25, 0.95, 0.15)), _ARM)),
    "pointing": dict(weight=1.5, head=(0, 0, 15), trunk=(0, 0, 10),
                     arms=(((0.5, 0.0, 0.85), (0.45, 0.08, 0.85)), _ARM)),
    "arms ahead": dict(weight=1, arms=(_ARM_AHEAD,)),
    "arms out": dict(weight=2, arms=(_ARM_OUT,)),
    "arms up": dict(weight=1.5, trunk=(-6, 0, 0), head=(-10, 0, 0), arms=(_ARM_UP,)),
    "cheering": dict(weight=1.5, head=(-12, 0, 0), arms=(((0.85, 0.55, 0.05), (0.45, 0.90, 0.05)),)),
    "reaching up": dict(weight=1.5, trunk=(-3, -8, 5), head=(-15, 0, 10), arms=(_ARM_UP, _ARM)),
    "reaching aside": dict(weight=1.5, tilt=(0, 5), trunk=(5, 18, 0),
                           legs=((15, 15, 12, 0, 28, -5), (0, 14, 5, 0, 3, 0)),
                           arms=(((1, 0.0, 0.25), (1, -0.1, 0.30)), _ARM)),
    "walk, heel down": dict(weight=4, tilt=(3, 0), trunk=(2, 0, -7),
                            legs=((26, 1, 3, 0, 6, -2), (-20, 1, 5, 0, 14, 10)),
                            arms=(_ARM_BACK, _ARM_FRONT)),
    "walk, passing": dict(weight=3, tilt=(3, 0), trunk=(2, 0, 0), legs=((2, 1, 5, 0, 6, -4), (18, 1, 3, 0, 55, 8))),
    "walk, push off": dict(weight=3, tilt=(3, 0), trunk=(3, 0, 6), legs=((-22, 1, 5, 0, 24, 22), (24, 1, 3, 0, 12, -4)),
                           arms=(_ARM_FRONT, _ARM_BACK)),
    "run, drive": dict(weight=2, tilt=(12, 0), trunk=(6, 0, -10), legs=((75, 2, 0, 0, 95, 0), (-14, 2, 5, 0, 18, 30)),
                       arms=(_ARM_RUN_BACK, _ARM_RUN_FRONT)),
    "run, landing": dict(weight=2, tilt=(10, 0), trunk=(5, 0, 6), legs=((38, 2, 0, 0, 30, -8), (8, 2, 3, 0, 105, 20)),
                         arms=(_ARM_RUN_FRONT, _ARM_RUN_BACK)),
    "run, in the air": dict(weight=1, air=True, tilt=(10, 0), trunk=(4, 0, -8), arms=(_ARM_RUN_BACK, _ARM_RUN_FRONT),
                            legs=((60, 2, 0, 0, 60, 0), (-22, 2, 3, 0, 70, 25))),
    "sit": dict(weight=3, tilt=(-6, 0), trunk=(6, 0, 0), legs=((84, 0, 8, 0, 90, 0),), arms=(_ARM_ON_THIGH,)),
    "sit, lean forward": dict(weight=2, tilt=(8, 0), trunk=(38, 0, 0), head=(-12, 0, 0), legs=((98, 0, 12, 0, 95, -2),),
                              arms=(((0.30, -0.45, 0.85), (-0.25, -0.15, 0.95)),)),
    "sit, lean back": dict(weight=2, tilt=(-22, 0), trunk=(12, 4, 0), head=(8, 0, 0), legs=(
        (72, 0, 12, 25, 85, 5), (70, 0, 5, 0, 70, 5)), arms=(((0.9, -0.45, -0.1), (0.75, -0.35, 0.45)), _ARM_ON_THIGH)),
    "sit, legs crossed": dict(weight=1.5, tilt=(-8, 0), trunk=(8, 0, 0),
                              legs=((92, 0, -10, 5, 80, 10), (82, 0, 4, 0, 88, 0)),
                              arms=(_ARM_ON_THIGH, _ARM_ON_THIGH)),
    "sit, desk": dict(weight=2, tilt=(2, 0), trunk=(10, 0, 0), head=(12, 0, 0), legs=((88, 0, 6, 0, 80, 5),),
                      arms=(((0.30, -0.80, 0.50), (-0.20, -0.02, 1)),)),
    "sit on the ground": dict(weight=1, tilt=(-18, 0), trunk=(8, 0, 0),
                              legs=((70, 0, 8, 0, 12, 12), (80, 0, 5, 0, 70, 8)),
                              arms=(_ARM_PROP_BACK,)),
    "sit cross-legged": dict(weight=1, tilt=(-8, 0), trunk=(14, 0, 0),
                             legs=((92, 0, 40, 48, 128, 15), (90, 0, 40, 40, 124, 15)),
                             arms=(((0.35, -0.85, 0.45), (0.20, -0.55, 0.85)),)),
    "crouch": dict(weight=1.5, tilt=(30, 0), trunk=(12, 0, 0), head=(-15, 0, 0), legs=((122, 0, 14, 0, 125, -28),),
                   arms=(((0.20, -0.65, 0.70), (-0.10, -0.45, 0.90)),)),
    "half squat": dict(weight=2, tilt=(28, 0), trunk=(6, 0, 0), head=(-14, 0, 0), legs=((78, 4, 14, 0, 72, -22),),
                       arms=(((0.25, -0.60, 0.75), (-0.05, -0.10, 1)),)),
    "ready": dict(weight=2, tilt=(22, 0), trunk=(10, 0, 0), head=(-20, 0, 0), legs=((48, 10, 12, 0, 45, -16),),
                  arms=(((0.45, -0.80, 0.35), (0.10, -0.30, 0.95)),)),
    "kneel on one knee": dict(weight=1.5, trunk=(4, 0, 0), legs=((103, 2, 6, 0, 100, 0), (-3, 2, 3, 0, 92, 40)),
                              arms=(_ARM_ON_THIGH, _ARM)),
    "kneel": dict(weight=1, trunk=(4, 0, 0), legs=((6, 4, 4, 0, 100, 45),)),
    "sit on the heels": dict(weight=1, trunk=(8, 0, 0), legs=((72, 2, 8, 0, 145, 45),), arms=(_ARM_ON_THIGH,)),
    "bend to pick up": dict(weight=1.5, tilt=(42, 0), trunk=(36, 0, 0), head=(-12, 0, 0), legs=((72, 3, 8, 0, 36, -5),),
                            arms=(((0.20, -0.30, 0.95), (0.08, -0.35, 0.95)), ((0.25, -0.40, 0.90), (0.02, -0.15, 1)))),
    "lean on a table": dict(weight=1.5, tilt=(22, 0), trunk=(18, 0, 0), head=(8, 0, 0), legs=((24, 3, 6, 0, 6, 0),),
                            arms=(((0.30, -0.75, 0.60), (0.20, -0.80, 0.62)),)),
    "bow": dict(weight=1, tilt=(35, 0), trunk=(16, 0, 0), head=(12, 0, 0), legs=((38, 2, 4, 0, 4, 0),)),
    "lunge": dict(weight=1.5, tilt=(8, 0), trunk=(2, 0, 0), legs=((82, 2, 4, 0, 80, -6), (-22, 2, 6, 0, 32, 20)),
                  arms=(_ARM_HIP, _ARM_HIP)),
    "side lunge": dict(weight=1.5, tilt=(22, 0), trunk=(6, 0, 0), legs=((80, 14, 24, 0, 78, -18), (24, 34, 6, 0, 6, 0)),
                       arms=(((0.30, -0.60, 0.70), (-0.40, 0.05, 0.9)),)),
    "kick": dict(weight=1.5, tilt=(-12, 0), trunk=(8, 0, 10), legs=((5, 5, 10, 0, 16, -8), (80, 2, 0, 0, 20, 30)),
                 arms=(((0.75, -0.25, 0.60), (0.55, -0.05, 0.85)), ((0.85, -0.30, -0.40), (0.85, -0.20, 0.05)))),
    "kick, wind up": dict(weight=1.5, tilt=(12, 4), trunk=(-4, 6, -12),
                          legs=((16, 4, 8, 0, 28, -12), (-28, 6, 5, 0, 78, 25)),
                          arms=(((0.90, 0.10, 0.30), (0.90, 0.0, 0.40)), ((0.80, -0.40, -0.45), (0.75, -0.50, -0.05)))),
    "throw, wind up": dict(weight=1.5, tilt=(-6, 0), trunk=(-6, 0, -26),
                           legs=((32, 4, 4, 0, 22, 0), (-8, 6, 22, 0, 24, 0)),
                           arms=(((0.55, 0.15, 0.80), (0.45, 0.15, 0.85)), ((0.90, 0.20, -0.35), (0.30, 0.90, -0.20)))),
    "throw, release": dict(weight=1.5, tilt=(14, 0), trunk=(14, 0, 24),
                           legs=((42, 4, 4, 0, 38, -8), (-20, 4, 14, 0, 30, 20)),
                           arms=(((0.45, -0.80, -0.20), (0.0, -0.30, 0.90)), ((0.60, 0.40, 0.70), (0.20, 0.45, 0.85)))),
    "swing, back": dict(weight=1, tilt=(12, 0), trunk=(10, 0, -34), head=(0, 0, 34), legs=((22, 8, 10, 0, 24, -8),),
                        arms=(((-0.35, -0.25, 0.90), (-0.80, 0.25, 0.45)), ((0.65, -0.45, 0.30), (0.05, 0.65, 0.70)))),
    "swing, through": dict(weight=1, tilt=(10, 0), trunk=(6, 0, 34), head=(0, 0, -10), arms=(
        ((0.60, 0.10, 0.75), (0.15, 0.50, 0.85)), ((-0.35, -0.10, 0.90), (-0.75, 0.30, 0.55))),
        legs=((14, 5, 14, 0, 14, -2), (-4, 6, 4, 0, 40, 24))),
    "two hands low": dict(weight=1, tilt=(24, 0), trunk=(16, 0, 0), head=(12, 0, 0), legs=((34, 8, 10, 0, 22, -4),),
                          arms=(((0.02, -0.75, 0.65), (-0.25, -0.70, 0.65)),)),
    "serve": dict(weight=1, trunk=(-10, 8, -10), head=(-26, 0, 0), legs=((14, 3, 8, 0, 24, -8), (4, 5, 18, 0, 20, -6)),
                  arms=(((0.25, 0.95, 0.35), (0.15, 1, 0.25)), ((0.90, 0.15, -0.25), (0.45, 0.85, -0.10)))),
    "star jump": dict(weight=1, air=True, trunk=(-6, 0, 0), legs=((-2, 26, 10, 0, 8, 25),),
                      arms=(((0.75, 0.65, 0.0), (0.70, 0.70, 0.1)),)),
    "tuck jump": dict(weight=1, air=True, tilt=(8, 0), trunk=(8, 0, 0), legs=((80, 6, 8, 0, 88, 20),),
                      arms=(_ARM_UP, _ARM_OUT)),
    "leap": dict(weight=1, air=True, legs=((72, 4, 4, 0, 22, 25), (-28, 6, 8, 0, 30, 30)),
                 arms=(_ARM_OUT, ((0.5, 0.6, 0.6), (0.45, 0.65, 0.6)))),
    "balance": dict(weight=1, legs=((0, 2, 8, 0, 3, 0), (72, 4, 42, 20, 105, 25)), arms=(_ARM_OUT,)),
    "arabesque": dict(weight=0.7, tilt=(30, 0), trunk=(-16, 0, 0), legs=((30, 2, 8, 0, 4, 0), (-22, 8, 8, 0, 10, 30)),
                      arms=(_ARM_OUT, ((0.35, 0.25, 0.90), (0.30, 0.35, 0.90)))),
    "climb": dict(weight=1, trunk=(0, 4, 0), head=(-15, 0, 0), legs=((82, 12, 24, 10, 88, 5), (4, 8, 8, 0, 14, 20)),
                  arms=(_ARM_UP, ((0.55, 0.15, 0.75), (0.15, 0.85, 0.50)))),
    "cycle": dict(weight=1, tilt=(32, 0), trunk=(22, 0, 0), head=(-28, 0, 0),
                  legs=((118, 0, 3, 0, 98, 5), (66, 0, 3, 0, 42, 10)),
                  arms=(((0.25, -0.35, 0.95), (0.12, -0.30, 0.95)),)),
    "all fours": dict(weight=0.7, tilt=(84, 0), trunk=(4, 0, 0), head=(-18, 0, 0), legs=((86, 3, 3, 0, 92, 30),),
                      arms=(((0.22, -0.05, 1), (0.12, 0.0, 1)),)),
    "plank": dict(weight=0.5, tilt=(74, 0), trunk=(0, 0, 0), head=(-12, 0, 0), legs=((2, 3, 0, 0, 3, -20),),
                  arms=(((0.30, -0.25, 0.95), (0.20, -0.20, 0.97)),)),
    "lie on the back": dict(weight=0.6, tilt=(-88, 0), legs=((2, 5, 8, 0, 5, 25), (30, 4, 6, 0, 55, 15)),
                            arms=(((0.5, -0.85, 0.0), (0.3, -0.9, 0.2)), ((0.45, -0.85, 0.1), (-0.6, -0.5, 0.6)))),
    "lie on the side": dict(weight=0.5, tilt=(0, 86), trunk=(14, 0, 0), head=(6, 0, 0),
                            legs=((52, 0, 0, 0, 66, 20), (38, 6, 0, 0, 48, 20)),
                            arms=(((0.15, 0.1, 0.95), (-0.1, 0.4, 0.9)), ((0.1, -0.6, 0.8), (-0.3, -0.3, 0.9)))),
    "lie on the front": dict(weight=0.4, tilt=(74, 0), trunk=(-20, 0, 0), head=(-24, 0, 0),
                             legs=((-16, 6, 6, 0, 6, 40),),
                             arms=(((0.30, -0.50, 0.80), (-0.15, 0.70, 0.65)),)),
    "kick, high": dict(weight=0.8, tilt=(-14, 0), trunk=(14, 0, 0),
                       legs=((8, 3, 10, 0, 10, -5), (118, 6, 0, 0, 10, 25)),
                       arms=(_ARM_OUT, ((0.5, -0.6, 0.5), (0.3, -0.4, 0.85)))),
    "kick, to the side": dict(weight=0.6, tilt=(0, 28), trunk=(0, -18, 0),
                              legs=((0, 8, 20, 0, 12, 0), (30, 64, 0, 0, 12, 20)),
                              arms=(((0.5, -0.5, 0.5), (-0.1, 0.4, 0.9)), _ARM_OUT)),
    "splits": dict(weight=0.3, tilt=(16, 0), legs=((96, 4, 0, 0, 6, 25), (-33, 6, 6, 0, 8, 35)), arms=(_ARM_OUT,)),
    "handstand": dict(weight=0.5, tilt=(176, 0), trunk=(-8, 0, 0), head=(-30, 0, 0), legs=((2, 3, 5, 0, 8, 35),),
                      arms=(_ARM_UP,)),
    "handstand, legs apart": dict(weight=0.5, tilt=(165, 0), trunk=(-10, 0, 0), head=(-25, 0, 0), arms=(_ARM_UP,),
                                  legs=((75, 4, 5, 0, 14, 25), (-24, 6, 5, 0, 24, 30))),
    "cartwheel": dict(weight=0.5, tilt=(10, 140), trunk=(0, 6, 0),
                      legs=((12, 44, 10, 0, 8, 30), (4, 36, 10, 0, 14, 30)),
                      arms=(((0.50, 0.90, 0.15), (0.40, 0.95, 0.15)),)),
    "bridge": dict(weight=0.3, tilt=(-80, 0), trunk=(-42, 0, 0), head=(-30, 0, 0), legs=((-16, 8, 5, 0, 88, 10),),
                   arms=(((0.35, 0.90, -0.25), (0.25, 0.90, -0.30)),)),
    "roll": dict(weight=0.5, tilt=(150, 0), trunk=(60, 0, 0), head=(40, 0, 0), legs=((112, 6, 6, 0, 105, 15),),
                 arms=(((0.35, -0.20, 0.90), (0.10, -0.20, 0.95)),)),
    "roll, on the back": dict(weight=0.5, tilt=(-105, 0), trunk=(50, 0, 0), head=(36, 0, 0),
                              legs=((118, 8, 6, 0, 95, 15),),
                              arms=(((0.35, -0.55, 0.75), (0.10, -0.60, 0.80)),)),
    "back flip": dict(weight=0.4, air=True, tilt=(-160, 0), trunk=(20, 0, 0), legs=((95, 8, 6, 0, 105, 25),),
                      arms=(((0.35, -0.60, 0.70), (0.05, -0.70, 0.70)),)),
}  # fmt: skip


def key_poses() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every pose of the table.

    Returns:
        Rotations relative to the parent as axis-angle, (P, 24, 3) rad, the root's relative to an upright body that
        faces +z with y up; weights (P,), which sum to 1; whether the pose is off the ground, (P,) bool.
    """
    poses = [_rotations(**entry) for entry in _TABLE.values()]
    weights = np.array([entry["weight"] for entry in _TABLE.values()], np.float64)
    air = np.array([entry.get("air", False) for entry in _TABLE.values()])
    return np.stack(poses), weights / weights.sum(), air


def _rotations(
    weight: float,
    tilt: tuple = (0, 0),
    trunk: tuple = (0, 0, 0),
    head: tuple = (0, 0, 0),
    legs: tuple = (_LEG,),
    arms: tuple = (_ARM,),
    air: bool = False,
) -> np.ndarray:
    """One line of the table as axis-angle (24, 3); `weight` and `air` are read by the caller."""
    pose = dict.fromkeys(SMPL24, Rotation.identity())
    pose["pelvis"] = _euler("xz", (tilt[0], -tilt[1]))
    for joints, angles in ((("spine1", "spine2", "spine3"), trunk), (("neck", "head"), head)):
        part = _euler("xzy", np.array([angles[0], -angles[1], angles[2]]) / len(joints))
        pose.update(dict.fromkeys(joints, part))
    for side, leg, arm in zip(("left", "right"), (legs * 2)[:2], (arms * 2)[:2], strict=True):
        limbs = {**_leg(*leg), **_arm(*arm)}
        for joint, rotation in limbs.items():
            if side == "right":
                rotation = Rotation.from_rotvec(rotation.as_rotvec() * (1, -1, -1))  # seen in a mirror at x = 0
            pose[f"{side}_{joint}"] = rotation
    return np.stack([pose[joint].as_rotvec() for joint in SMPL24])


def _leg(flexion: float, abduction: float, turn: float, twist: float, knee: float, toes: float) -> dict:
    hip = _euler("yxzy", (twist, -flexion, abduction, turn))
    return {"hip": hip, "knee": _euler("x", (knee,)), "ankle": _euler("x", (toes,))}


def _arm(upper_arm: tuple, forearm: tuple) -> dict:
    """The left arm. At rest it points along +x, and the elbow bends it towards +z."""
    upper, fore = np.array(upper_arm) / np.linalg.norm(upper_arm), np.array(forearm) / np.linalg.norm(forearm)
    bend = fore - (fore @ upper) * upper
    bend /= np.linalg.norm(bend)
    whole = Rotation.from_matrix(np.stack([upper, np.cross(bend, upper), bend], axis=1))
    # The collar bone takes its share: up with a raised arm, forward with one that reaches ahead or across.
    collar = _euler("yz", (-12 * max(upper[2], 0) - 10 * max(-upper[0], 0), 26 * max(upper[1], 0)))
    elbow = np.degrees(np.arccos(np.clip(upper @ fore, -1, 1)))
    return {
        "collar": collar,
        "shoulder": collar.inv() * whole,
        "elbow": _euler("y", (-elbow,)),
        "hand": _euler("z", (-12,)),
    }


def _euler(axes: str, degrees: tuple | np.ndarray) -> Rotation:
    """Turns about the fixed axes, the first one first."""
    rotation = Rotation.identity()
    for axis, angle in zip(axes, degrees, strict=True):
        rotation = Rotation.from_euler(axis, angle, degrees=True) * rotation
    return rotation
