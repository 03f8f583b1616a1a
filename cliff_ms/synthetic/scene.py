"""Images of synthetic people, with their labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from cliff_ms.body.files import Body
from cliff_ms.data.annotations import Annotations
from cliff_ms.data.detections import MIN_JOINTS
from cliff_ms.keypoints import COCO17, LANDMARKS, SPIN24, index_map
from cliff_ms.synthetic import world
from cliff_ms.synthetic.backdrop import Thing, View, backdrop, box, draw_thing, finish, thing
from cliff_ms.synthetic.observation import crops_around
from cliff_ms.synthetic.painting import Painter
from cliff_ms.visual.render import rasterize, vertex_normals

SCENE_SIZES = ((480, 640), (480, 640), (640, 480), (432, 768), (560, 560), (448, 672), (672, 448))  # h, w px
_COUNTS = (0.42, 0.31, 0.16, 0.11)  # shares of images with 1, 2, 3, 4 people
_NEXT_TO = 0.4  # share of further people who are placed near somebody
_TRIES = 12
_SMOOTH_BELOW = 0.3  # share of the frame in boxes around people; above, crops are shrunk and outlines smooth anyway
_BEHIND = 0.05  # m; a joint lies inside the body: only a surface this far in front of it hides it
_OCCLUDED = 0.25  # share of images with something in front of people
_SPIN, _COCO = index_map(LANDMARKS, SPIN24), index_map(LANDMARKS, COCO17)


@dataclass(frozen=True)
class Scene:
    """P people in front of one camera.

    Attributes:
        view: The camera.
        people: The people, in its frame.
        vertices: (P, V, 3) m, camera frame.
    """

    view: View
    people: world.SeenPeople
    vertices: np.ndarray


class SceneMaker:
    """Makes images of one to four people; the image of a seed is always the same.

    Args:
        body: The body.
        backgrounds: Photos to put people in; empty for drawn backgrounds.
        real: Share of people in recorded poses, see `world.World`.
        test: Which recorded poses, see there.

    Raises:
        InputError: If the body has no regressor for SPIN's keypoints.
    """

    def __init__(self, body: Body, backgrounds: list[Path], real: float = world.REAL, test: bool = False) -> None:
        self.world = world.World(body, whole=True, real=real, test=test)
        self.painter = Painter(body)
        self.faces = body.faces
        self.backgrounds = backgrounds

    def make(self, seed: tuple[int, ...]) -> tuple[np.ndarray, Annotations]:
        """Make an image of a seed.

        Args:
            seed: Of everything in it.

        Returns:
            The image, (H, W, 3) uint8 RGB, and its annotations, see `annotate`: a row per person with enough
            joints to be seen, at least one.

        Raises:
            InputError: If a background photo cannot be read.
        """
        for attempt in range(100):
            rng = np.random.default_rng((*seed, attempt))
            scene = self.place(rng)
            image, owner, depth = self.draw(rng, scene)
            people = annotate(scene, owner, depth)
            if len(people):
                return image, people
        raise ValueError(f"For 'SceneMaker.make', no image of seed {seed} shows anybody.")

    def place(self, rng: np.random.Generator) -> Scene:
        """Put one to four people in front of a camera, on one ground more often than not."""
        count = rng.choice(len(_COUNTS), p=_COUNTS) + 1
        bodies = self.world.draw(rng, count)
        img_hw = np.array(SCENE_SIZES[rng.integers(len(SCENE_SIZES))], np.float64)
        focal = world.sample_focal_lengths(rng, img_hw[None])
        # The first person's place in the frame decides the camera's pitch, and with it where the ground is.
        feet = bodies.vertices[:, :, 1].max(1).astype(np.float64)
        feet += np.where(bodies.air, rng.uniform(0.1, 0.6, count), 0)
        middle = (bodies.points[:, :, 1].min(1) + bodies.points[:, :, 1].max(1)) / 2
        spot, depth = _spots(rng, 1, img_hw), world.sample_depths(rng, focal, img_hw[None])
        below = world.sample_heights(rng, np.zeros(1, bool)) - feet[:1] + middle[:1]
        grounded = rng.random() < world.ON_GROUND
        free = np.array([np.nan if grounded else np.radians(rng.normal(0, 12))])
        roll = world.sample_roll(rng, 1)
        for _ in range(_TRIES):
            from_level = world.camera_rotation(world.aim(focal, roll, spot, depth, below, free), roll)[0]
            place = _unproject(spot[0], depth[0], focal[0]) @ from_level - (0, middle[0], 0)  # of the pelvis
            if world.well_placed(((bodies.points[0] + place) @ from_level.T)[None], focal, img_hw[None])[0]:
                break
            spot, depth = 0.75 * spot, 1.2 * depth
        ground = place[1] + feet[0]

        placed, places = [0], [place]
        for k in range(1, count):
            for _ in range(_TRIES):
                near = places[rng.integers(len(places))] if rng.random() < _NEXT_TO else None
                place = _somewhere(rng, img_hw, focal[0], from_level, near)
                if grounded:
                    place[1] = ground - feet[k]
                points = bodies.points[k] + place
                others = [bodies.points[i] + p for i, p in zip(placed, places, strict=True)]
                well = world.well_placed((points @ from_level.T)[None], focal, img_hw[None])[0]
                if well and not any(_collide(points, other) for other in others):
                    placed.append(k)
                    places.append(place)
                    break
        kept = world.Bodies(*(getattr(bodies, name)[placed] for name in bodies.__dataclass_fields__))
        in_camera = np.stack(places) @ from_level.T
        turned = np.tile(from_level, (len(placed), 1, 1))
        people = kept.seen(turned, in_camera, np.tile(focal, len(placed)), np.tile(img_hw, (len(placed), 1)))
        vertices = kept.vertices @ from_level.T.astype(np.float32) + in_camera[:, None].astype(np.float32)
        height, width = img_hw.astype(int).tolist()
        view = View((height, width), float(focal[0]), from_level, float(ground) if grounded and ground > 0.15 else None)
        return Scene(view, people, vertices)

    def draw(self, rng: np.random.Generator, scene: Scene) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw a scene.

        Args:
            rng: Where randomness comes from.
            scene: The people and their camera.

        Returns:
            The image (H, W, 3) uint8 RGB; who is in front at each pixel, (H, W) int, -1 for nobody and P for a thing;
            and how far away they are, (H, W) m.
        """
        view, nearest = scene.view, scene.people.points[..., 2].min()
        image = backdrop(rng, view, self.backgrounds)
        light = _light(rng)
        if view.ground is not None:
            if not self.backgrounds:
                farthest = float(scene.people.points[..., 2].max())
                ignored = np.zeros(view.img_hw, np.uint8)
                items = _things(rng, view, view.ground, farthest + 0.8, farthest + 8, rng.integers(0, 5))
                for item in items + _seats(rng, scene, view.ground):
                    draw_thing(image, ignored, item, view)
            image = _shaded(image, _shadow(scene, light, view.ground), rng.uniform(0.2, 0.6))
        owner, depth = self._people(rng, image, scene, view.from_level @ light)
        mask = np.zeros(view.img_hw, np.uint8)
        if rng.random() < _OCCLUDED:
            self._in_front(rng, image, mask, scene, float(nearest))
        owner[mask > 0] = len(scene.vertices)
        depth[mask > 0] = 0
        return finish(rng, image), owner, depth

    def _people(
        self, rng: np.random.Generator, image: np.ndarray, scene: Scene, light: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw everybody into the image, in place; who and how far, (H, W) each."""
        colours, vertices = [], []
        ambient, ambient_colour = rng.uniform(0.3, 0.65), rng.uniform(0.85, 1.1, 3).astype(np.float32)
        for bare in scene.vertices:
            paint, thick = self.painter.paint(rng)
            normals = vertex_normals(bare, self.faces)
            facing = normals @ light.astype(np.float32)
            lamp = 0.65 * np.maximum(facing, 0) + 0.175 * (1 + facing)  # part of it wraps around
            colours.append(255 * paint * (ambient * ambient_colour + (1.25 - ambient) * lamp[:, None]))
            vertices.append(bare + normals * thick[:, None])
        count = len(self.faces)
        faces = np.concatenate([self.faces + k * len(bare) for k, bare in enumerate(vertices)])
        fine = _fineness(scene)
        height, width = (side * fine for side in image.shape[:2])
        seen = rasterize(np.concatenate(vertices), faces, scene.view.focal * fine, (height, width))
        owner, depth = np.full(image.shape[:2], -1), np.full(image.shape[:2], np.inf, np.float32)
        row, column = np.divmod(seen.pixel, width)
        here = (row // fine, column // fine)
        owner[here], depth[here] = seen.face // count, seen.z

        top, left = (here[k].min() for k in range(2))
        bottom, right = (here[k].max() + 1 for k in range(2))
        layer: np.ndarray = np.zeros(((bottom - top) * fine, (right - left) * fine, 4), np.uint8)  # colour and cover
        colour = seen.interpolate(np.concatenate(colours), faces).clip(0, 255)
        layer[row - top * fine, column - left * fine] = np.concatenate([colour, np.full((len(row), 1), 255)], 1)
        if fine > 1:
            layer = cv2.resize(layer, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
        under = image[top:bottom, left:right]
        keep = cv2.merge([255 - layer[..., 3]] * 3)
        under[:] = cv2.add(cv2.multiply(under, keep, scale=1 / 255), layer[..., :3])
        return owner, depth

    def _in_front(
        self, rng: np.random.Generator, image: np.ndarray, mask: np.ndarray, scene: Scene, nearest: float
    ) -> None:
        """Put something in front of somebody: on the ground if there is room for it, else a shape; in place."""
        view = scene.view
        if view.ground is not None and nearest > 1.4:
            for item in _things(rng, view, view.ground, 0.9, nearest - 0.5, 1, scene.people.points[:, 0]):
                draw_thing(image, mask, item, view)
            return
        person = scene.people.points2d[rng.integers(len(scene.vertices))]
        low, high = person.min(0), person.max(0)
        x, y = rng.uniform(low, high).tolist()
        width, height = (2 * ((high - low).max() * rng.uniform(0.1, 0.3, 2))).tolist()
        shade = rng.uniform(10, 230, 3).tolist()
        oval = ((x, y), (width, height), float(rng.uniform(0, 180)))
        paint = cv2.ellipse if rng.random() < 0.5 else _rectangle
        paint(image, oval, shade, -1)
        paint(mask, oval, (1,), -1)


def annotate(scene: Scene, owner: np.ndarray, depth: np.ndarray) -> Annotations:
    """Annotations of the people of an image who can be seen.

    Args:
        scene: The people.
        owner: Who is in front at each pixel, (H, W): -1 for nobody, P for a thing.
        depth: How far away that is, (H, W) m.

    Returns:
        A row per person; the image's name is empty.
    """
    people = scene.people
    inside = people.in_frame()
    x, y = np.moveaxis(people.points2d.clip(0, people.img_hw[:, None, ::-1] - 1).astype(int), -1, 0)
    front = owner[y, x]
    other = (front >= 0) & (front != np.arange(len(front))[:, None])
    hidden = other & (depth[y, x] < people.points[..., 2] - _BEHIND)
    part = np.concatenate([people.points2d, inside[..., None]], -1)[:, _SPIN]
    coco = np.concatenate([people.points2d, (inside & ~hidden)[..., None]], -1)[:, _COCO]
    coco *= coco[..., 2:]
    kept = (coco[..., 2].sum(1) >= MIN_JOINTS) & (part[..., 2].sum(1) >= MIN_JOINTS)
    center, size = crops_around(part[kept]) if kept.any() else (np.zeros((0, 2)), np.zeros(0))
    joints = people.points[:, _SPIN]
    joints = joints - joints[:, [SPIN24.index("pelvis_mpii")]]
    pose = Rotation.from_matrix(people.rotmats[kept].reshape(-1, 3, 3)).as_rotvec().reshape(-1, 72)
    count = int(kept.sum())
    return Annotations.of(
        image_names=np.full(count, ""),
        center=center,
        size=size,
        keypoints2d=part[kept],
        keypoints3d=np.concatenate([joints, np.ones_like(joints[..., :1])], -1)[kept],
        pose=pose,
        betas=people.betas[kept],
        has_smpl=np.ones(count),
        focal_length=people.focal_length[kept],
        img_hw=people.img_hw[kept],
        translation=people.translation[kept],
        input_keypoints=coco[kept],
        input_joint_set="coco17",
        gender=np.full(count, "n"),
    )


def _spots(rng: np.random.Generator, count: int, img_hw: np.ndarray) -> np.ndarray:
    """(N, 2) px from the image's centre, anywhere in the frame; a little less so up and down, where heads are cut."""
    return (rng.random((count, 2)) - 0.5) * img_hw[::-1] * (1, 0.8)


def _unproject(spot: np.ndarray, depth: float, focal: float) -> np.ndarray:
    """The point (3,) m, camera frame, at a spot and depth."""
    return np.array([*(spot / focal), 1.0]) * depth


def _somewhere(
    rng: np.random.Generator, img_hw: np.ndarray, focal: float, from_level: np.ndarray, near: np.ndarray | None
) -> np.ndarray:
    """A place (3,) m, level frame: near another one, or anywhere in view."""
    if near is not None:
        return near + (rng.normal(0, 0.7), 0, rng.normal(0, 0.9))
    depth = world.sample_depths(rng, np.array([focal]), img_hw[None])[0]
    return _unproject(_spots(rng, 1, img_hw)[0], depth, focal) @ from_level


def _collide(points: np.ndarray, others: np.ndarray) -> bool:
    """Whether the boxes around the landmarks of two people, (54, 3) m each, come nearer than 5 cm."""
    return bool(((points.min(0) < others.max(0) + 0.05) & (points.max(0) > others.min(0) - 0.05)).all())


def _light(rng: np.random.Generator) -> np.ndarray:
    """Towards the light, from above, (3,), level frame."""
    direction = np.array([rng.normal(), -abs(rng.normal()) - 0.8, rng.normal() - 0.5])
    return direction / np.linalg.norm(direction)


def _things(
    rng: np.random.Generator,
    view: View,
    ground: float,
    near: float,
    far: float,
    count: int,
    before: np.ndarray | None = None,
) -> list[Thing]:
    """Things on the ground between two depths: anywhere in view, or before one of the points (P, 3) m, camera frame."""
    items = []
    for _ in range(count):
        depth = rng.uniform(near, far)
        if before is None:
            spot = (rng.random() - 0.5) * view.img_hw[1] / view.focal
        else:
            person = before[rng.integers(len(before))]
            spot = person[0] / person[2] + rng.normal(0, 0.25 / person[2])
        x, _, z = (np.array([spot, 0, 1]) * depth) @ view.from_level
        items.append(thing(rng, x, z, ground))
    return sorted(items, key=lambda item: -item.corners[:, 2].mean())


def _seats(rng: np.random.Generator, scene: Scene, ground: float) -> list[Thing]:
    """Something to sit on for those whose thighs are level and whose feet are not below them."""
    points = scene.people.points @ scene.view.from_level.astype(np.float32)  # level frame
    joints = {
        name: (points[:, LANDMARKS.index(f"left_{name}")] + points[:, LANDMARKS.index(f"right_{name}")]) / 2
        for name in ("hip", "knee", "ankle")
    }
    items = []
    for hip, knee, ankle in zip(joints["hip"], joints["knee"], joints["ankle"], strict=True):
        height = ground - hip[1] - 0.11
        forward = (knee - hip)[[0, 2]]
        feet_ahead = (ankle - hip)[[0, 2]] @ forward / max(float(np.linalg.norm(forward)), 1e-6)
        if abs(knee[1] - hip[1]) < 0.2 and feet_ahead > 0.18 and 0.1 < height < 0.7:
            size = (*rng.uniform(0.36, 0.55, 2), height)
            items.append(box(rng, (hip[0], hip[2]), ground, size, float(np.arctan2(*forward[::-1]))))
    return items


def _shadow(scene: Scene, light: np.ndarray, ground: float) -> np.ndarray:
    """Where people darken the ground, (H, W) uint8: their vertices moved along the light, spread and smoothed."""
    view, small = scene.view, 4
    points = scene.vertices.reshape(-1, 3) @ view.from_level.astype(np.float32)  # level frame
    fall = (ground - points[:, 1:2]) / -light[1]
    shade = view.project(points - fall * light)
    shape = (view.img_hw[0] // small, view.img_hw[1] // small)
    column, row = (shade[:, :2] / small).T
    seen = (shade[:, 2] > 0.3) & (column >= 0) & (row >= 0) & (column < shape[1]) & (row < shape[0])
    mask: np.ndarray = np.zeros(shape, np.uint8)
    mask[row[seen].astype(int), column[seen].astype(int)] = 255
    mask = cv2.GaussianBlur(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)), (0, 0), 1.0)
    return cv2.resize(mask, view.img_hw[::-1], interpolation=cv2.INTER_LINEAR)


def _shaded(image: np.ndarray, shadow: np.ndarray, strength: float) -> np.ndarray:
    """The image with a shadow (H, W) uint8 on it."""
    keep = cv2.LUT(shadow, (255 - strength * np.arange(256)).astype(np.uint8))
    return cv2.multiply(image, cv2.merge([keep] * 3), scale=1 / 255)


def _fineness(scene: Scene) -> int:
    """Samples per pixel and axis: two for smooth outlines, one where people fill the frame."""
    low, high = (
        points.clip(0, scene.people.img_hw[:, ::-1])
        for points in (scene.people.points2d.min(1), scene.people.points2d.max(1))
    )
    return 2 if (high - low).prod(1).sum() < _SMOOTH_BELOW * np.prod(scene.view.img_hw) else 1


def _rectangle(image: np.ndarray, box: tuple, shade: Sequence[float], _: int) -> None:
    cv2.fillConvexPoly(image, cv2.boxPoints(box).astype(np.int32), shade)
