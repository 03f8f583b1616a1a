"""Clothes, hair, shoes and a face for the bare body, as colours of its vertices and a little thickness."""

import colorsys

import numpy as np

from cliff_ms.body.files import Body
from cliff_ms.keypoints import EXTRA21, SMPL24

_SKIN = np.array([(0.96, 0.80, 0.70), (0.88, 0.67, 0.54), (0.76, 0.55, 0.41), (0.60, 0.41, 0.30), (0.42, 0.28, 0.20),
                    (0.28, 0.18, 0.14)], np.float32)  # fmt: skip
_HAIR = np.array([(0.07, 0.06, 0.06), (0.16, 0.10, 0.07), (0.30, 0.19, 0.11), (0.55, 0.40, 0.22), (0.75, 0.62, 0.40),
                    (0.45, 0.20, 0.10), (0.62, 0.61, 0.60)], np.float32)  # fmt: skip
_SLEEVES = (0.10, 0.38, 0.48, 0.75, 0.97, 0.97, 0.97)  # shares of the arm from the shoulder to the wrist
_TROUSERS = (0.22, 0.38, 0.45, 0.75, 0.97, 0.97, 0.97, 0.97)  # shares of the leg from the hip to the ankle
_CLOTH_JOINTS = ("pelvis", "spine1", "spine2", "spine3", "left_collar", "right_collar", "left_hip", "right_hip")


class Painter:
    """Dresses a body in something else each time.

    Args:
        body: In SMPL's rest pose: arms along x, facing +z, y up.
    """

    def __init__(self, body: Body) -> None:
        v = body.v_template.astype(np.float32)
        joints = body.joint_regressor @ v
        at = {name: joints[k] for k, name in enumerate(SMPL24)}
        surface = {name: v[body.extra_vertex_ids[k]] for k, name in enumerate(EXTRA21)}
        part = np.array(SMPL24)[body.weights.argmax(1)]
        kind = np.array([name.removeprefix("left_").removeprefix("right_") for name in part])
        self.x, self.y, self.z = np.abs(v[:, 0]), v[:, 1], v[:, 2]
        self.vertices = v
        arm = np.isin(kind, ("shoulder", "elbow", "wrist", "hand"))
        leg = np.isin(kind, ("hip", "knee", "ankle", "foot"))
        span = at["left_wrist"][0] - at["left_shoulder"][0]
        self.along_arm = np.where(arm, (self.x - at["left_shoulder"][0]) / span, np.nan)
        length = at["left_hip"][1] - at["left_ankle"][1]
        self.along_leg = np.where(leg, (at["left_hip"][1] - self.y) / length, np.nan)
        self.trunk = np.isin(part, _CLOTH_JOINTS)
        self.foot = np.isin(kind, ("ankle", "foot"))
        self.head, self.neck = part == "head", part == "neck"
        self.hip_y, self.neck_y, self.chest_z = at["pelvis"][1], at["neck"][1], at["spine3"][2]
        self.nose, self.ear, self.eye = surface["nose"], surface["left_ear"], surface["left_eye"]
        self.eyes = np.minimum(*(np.linalg.norm(v - surface[f"{side}_eye"], axis=1) for side in ("left", "right")))
        self.shoulder_y = at["left_shoulder"][1]

    def paint(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Dress somebody.

        Args:
            rng: Where randomness comes from.

        Returns:
            Colours (V, 3) RGB in [0, 1], and how thick what is worn is, (V,) m along the normals; float32.
        """
        skin = _between_rows(rng, _SKIN) * rng.uniform(0.92, 1.05)
        colours = np.tile(skin, (len(self.y), 1)).astype(np.float32)
        thick = np.zeros(len(self.y), np.float32)
        self._face(rng, colours, skin)
        self._trousers(rng, colours, thick)
        self._top(rng, colours, thick)
        self._shoes(rng, colours, thick)
        self._hair(rng, colours, thick)
        # Folds and worn cloth, and so that no surface is of one colour.
        wave = self.vertices @ rng.normal(0, 30, (3, 6)).astype(np.float32) + rng.uniform(0, 6.28, 6).astype(np.float32)
        fold = np.sin(wave).sum(1) / 6
        thick *= 1 + 0.6 * fold
        colours *= (1 + rng.uniform(0.03, 0.10) * fold)[:, None]
        return colours.clip(0, 1), thick

    def _trousers(self, rng: np.random.Generator, colours: np.ndarray, thick: np.ndarray) -> None:
        length = rng.choice(_TROUSERS) + rng.normal(0, 0.02)
        waist = self.hip_y + rng.uniform(0.06, 0.12)
        worn = (self.along_leg < length) | (self.trunk & (self.y < waist))
        worn &= self.y < waist
        colour = _cloth_colour(rng, jeans=0.4)
        colours[worn] = colour
        thick[worn] = rng.uniform(0.003, 0.016)
        if rng.random() < 0.1:  # a stripe down the side
            side = worn & (np.abs(self.z - self.vertices[worn, 2].mean()) < 0.03) & (self.x > 0.13)
            colours[side] = _cloth_colour(rng)
        belt = worn & (self.y > waist - 0.035)
        if rng.random() < 0.3:
            colours[belt] = colour * 0.4

    def _top(self, rng: np.random.Generator, colours: np.ndarray, thick: np.ndarray) -> None:
        hem = self.hip_y + rng.choice((-0.10, -0.03, 0.03, 0.08)) + rng.normal(0, 0.015)
        sleeve = rng.choice(_SLEEVES) + rng.normal(0, 0.02)
        # The neckline drops in front, as a round or a deeper pointed one; or a collar goes up the neck.
        low = self.neck_y + rng.choice((0.03, -0.01, -0.02, -0.03))
        depth = rng.choice((0.02, 0.04, 0.10))
        drop = depth * (1 - self.x / 0.09).clip(0, 1) * (self.z > self.chest_z)
        below = self.y < low - drop
        body = (self.trunk | self.neck) & (self.y > hem) & below
        sleeves = self.along_arm < sleeve
        worn = body | sleeves
        first, second = _cloth_colour(rng), _cloth_colour(rng)
        colours[worn] = first
        thick[worn] = np.maximum(thick[worn], rng.uniform(0.004, 0.022))
        pattern = rng.random()
        if pattern < 0.15:  # stripes around, or down
            period = rng.uniform(0.05, 0.16)
            along = self.y if rng.random() < 0.7 else self.x
            colours[body & (np.mod(along, period) < period * rng.uniform(0.25, 0.6))] = second
        elif pattern < 0.27:  # sleeves of another colour
            colours[sleeves] = second
        elif pattern < 0.42:  # a print on the chest
            print_ = (self.x < rng.uniform(0.05, 0.11)) & (np.abs(self.y - 0.08) < rng.uniform(0.03, 0.09))
            colours[body & print_ & (self.z > self.chest_z)] = second
        elif pattern < 0.54:  # an open jacket over something else
            colours[body & (self.x < rng.uniform(0.03, 0.07)) & (self.z > self.chest_z)] = second
        elif pattern < 0.62:  # blocks of two colours
            colours[body & (self.y < rng.uniform(-0.1, 0.12))] = second

    def _shoes(self, rng: np.random.Generator, colours: np.ndarray, thick: np.ndarray) -> None:
        kind = rng.random()
        if kind < 0.06:  # barefoot
            return
        top = rng.uniform(0.72, 0.9) if kind < 0.16 else rng.uniform(0.97, 1.0)
        if kind > 0.5:  # socks
            sock = self.along_leg > rng.uniform(0.82, 0.95)
            colours[sock & (thick == 0)] = rng.choice((0.15, 0.9))
        worn = self.along_leg > top
        colour = _cloth_colour(rng)
        colours[worn], thick[worn] = colour, 0.010
        sole = self.y < self.y.min() + 0.018
        colours[worn & sole] = rng.choice((0.92, 0.12, 0.5))

    def _face(self, rng: np.random.Generator, colours: np.ndarray, skin: np.ndarray) -> None:
        front = self.head & (self.z > self.eye[2] - 0.03)
        height = self.y - self.nose[1]
        mouth = front & ((self.x / 0.026) ** 2 + ((height + 0.043) / 0.010) ** 2 < 1)
        colours[mouth] = skin * np.array((0.85, 0.55, 0.55), np.float32)
        above = self.y - self.eye[1]
        brows = front & (np.abs(above - 0.021) < 0.007) & (np.abs(self.x - self.eye[0]) < 0.021)
        colours[brows] = skin * 0.3
        colours[front & (self.eyes < 0.013)] = (0.93, 0.92, 0.90)
        colours[front & (self.eyes < 0.0085)] = _between_rows(rng, _HAIR) * 0.6
        if rng.random() < 0.10:  # dark glasses
            colours[front & (np.abs(above) < 0.016) & (self.x < 0.068)] = 0.08
        cheeks = front & (np.abs(height + 0.01) < 0.02) & (np.abs(self.x - 0.035) < 0.014)
        colours[cheeks] = skin * np.array((1.0, 0.90, 0.88), np.float32)

    def _hair(self, rng: np.random.Generator, colours: np.ndarray, thick: np.ndarray) -> None:
        colour = _between_rows(rng, _HAIR)
        height, behind = self.y - self.nose[1], self.ear[2] - self.z  # above the nose, behind the ears
        line = rng.uniform(0.070, 0.098)  # where the forehead ends
        cap = self.head & (height > line)
        style = rng.random()
        if style < 0.06:
            return
        if style < 0.14:  # bald on top
            worn = self.head & (behind > -0.015) & (height > -0.03) & (height < 0.06)
        elif style < 0.55:  # short
            worn = cap | (self.head & (behind > rng.uniform(-0.03, 0)) & (height > rng.uniform(-0.05, -0.01)))
        elif style < 0.75:  # down to the neck
            worn = cap | ((self.head | self.neck) & (behind > -0.025) & (height > -0.10))
        elif style < 0.90:  # long
            back = self.trunk & (behind > 0) & (self.x < 0.12) & (self.y > rng.uniform(0.02, 0.15))
            worn = cap | ((self.head | self.neck) & (behind > -0.03)) | back
        else:  # a hat over short hair
            under = self.head & (behind > -0.02) & (height > -0.04)
            colours[under], thick[under] = colour, 0.006
            worn, colour = self.head & (height > line - 0.005), _cloth_colour(rng)
        colours[worn] = colour
        thick[worn] = rng.uniform(0.004, 0.022)
        if rng.random() < 0.22:  # beard
            front = self.head & (behind < -0.01) & (height < -0.028)
            lips = (self.x / 0.026) ** 2 + ((height + 0.043) / 0.010) ** 2 < 1
            colours[front & ~lips] = _between_rows(rng, _HAIR) * 0.9


def _between_rows(rng: np.random.Generator, colours: np.ndarray) -> np.ndarray:
    """A colour between two neighbours of a list, (3,)."""
    place = rng.uniform(0, len(colours) - 1)
    k = int(place)
    return colours[k] + (place - k) * (colours[k + 1] - colours[k])


def _cloth_colour(rng: np.random.Generator, jeans: float = 0.0) -> np.ndarray:
    """Many greys, blacks and whites, some blues, some of every colour; (3,)."""
    if rng.random() < jeans:
        hsv = (rng.uniform(0.58, 0.64), rng.uniform(0.35, 0.65), rng.uniform(0.25, 0.65))
    elif rng.random() < 0.4:
        hsv = (rng.random(), rng.uniform(0, 0.12), rng.uniform(0.08, 0.97))
    else:
        hsv = (rng.random(), rng.uniform(0.3, 0.9), rng.uniform(0.25, 0.95))
    return np.array(colorsys.hsv_to_rgb(*hsv), np.float32)
