"""What is around synthetic people: rooms, open ground, soft patterns, the user's photos, and things that stand about.

Colours are RGB in [0, 1]; images are (H, W, 3) uint8.
"""

import colorsys
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from cliff_ms import camera
from cliff_ms.io.images import read_image

_FINE = 2  # backgrounds are computed at one over this of the image's size
_GRAIN = np.random.default_rng(0).normal(size=(128, 128, 3)).astype(np.float32)  # of the sensor, moved about


class View(NamedTuple):
    """A camera above a level ground.

    Attributes:
        img_hw: Height and width, px.
        focal: px.
        from_level: (3, 3), rotation from the level to the camera frame.
        ground: How far below the camera the ground is, m; None where no ground is meant.
    """

    img_hw: tuple[int, int]
    focal: float
    from_level: np.ndarray
    ground: float | None

    def project(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) m, level frame -> (N, 3) px, px, and m along the optical axis."""
        points = points @ self.from_level.T
        ahead = np.concatenate([points[:, :2], np.maximum(points[:, 2:], 1e-2)], 1)[None]
        from_middle = camera.project(ahead, np.zeros((1, 3)), np.array([self.focal]))
        pixels = camera.to_image(from_middle, np.array([self.img_hw]))[0]
        return np.concatenate([pixels, points[:, 2:]], 1)


def soft_noise(rng: np.random.Generator, img_hw: tuple[int, int], cells: int) -> np.ndarray:
    """Random values at a coarse grid, cubic in between, (H, W), about -1 to 1."""
    grid = rng.uniform(-1, 1, (cells + 2, cells + 2)).astype(np.float32)
    return cv2.resize(grid, img_hw[::-1], interpolation=cv2.INTER_CUBIC)


def backdrop(rng: np.random.Generator, view: View, backgrounds: list[Path]) -> np.ndarray:
    """Draw what is behind everybody.

    Args:
        rng: Where randomness comes from.
        view: The camera.
        backgrounds: The user's photos, one of which is taken instead; may be empty.

    Returns:
        (H, W, 3) uint8.

    Raises:
        InputError: If the photo cannot be read.
    """
    if backgrounds:
        return _background(rng, view.img_hw, backgrounds[rng.integers(len(backgrounds))])
    small = (view.img_hw[0] // _FINE, view.img_hw[1] // _FINE)
    if view.ground is None:
        image = _pattern(rng, small)
    else:
        image = _place(rng, view, view.ground, small)
    image = image + 0.04 * rng.random() * soft_noise(rng, small, 40)[..., None]
    return cv2.resize(_to_bytes(image), view.img_hw[::-1], interpolation=cv2.INTER_LINEAR)


def _background(rng: np.random.Generator, img_hw: tuple[int, int], path: Path) -> np.ndarray:
    """A part of the photo, of the image's shape, mirrored half the time."""
    photo = read_image(path)
    fill = max(img_hw[0] / photo.shape[0], img_hw[1] / photo.shape[1])
    part = np.array(img_hw) / (fill * rng.uniform(1, 1.4))
    top, left = (rng.random(2) * (np.array(photo.shape[:2]) - part).clip(0)).astype(int)
    height, width = np.maximum(part.astype(int), 1)
    crop = photo[top : top + height, left : left + width]
    image = cv2.resize(crop, img_hw[::-1], interpolation=cv2.INTER_AREA if fill < 1 else cv2.INTER_LINEAR)
    return np.ascontiguousarray(image[:, ::-1] if rng.random() < 0.5 else image)


def _pattern(rng: np.random.Generator, img_hw: tuple[int, int]) -> np.ndarray:
    """Out of focus: colours that run into each other, and patches."""
    image = np.broadcast_to(colour(rng), (*img_hw, 3)).astype(np.float32)
    for cells in (2, 5, 12):
        tint = colour(rng) - 0.5
        image = image + rng.uniform(0, 0.6) * soft_noise(rng, img_hw, cells)[..., None] * tint
    for _ in range(rng.integers(0, 14)):
        size = (rng.uniform(0.03, 0.5, 2) * img_hw[::-1]).astype(int)
        left, top = (rng.uniform(-0.1, 1, 2) * img_hw[::-1]).astype(int).tolist()
        paint = colour(rng).tolist()
        if rng.random() < 0.7:
            cv2.rectangle(image, (left, top), (left + int(size[0]), top + int(size[1])), paint, -1)
        else:
            cv2.circle(image, (left, top), int(size.min()), paint, -1, cv2.LINE_AA)
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 7))


def _place(rng: np.random.Generator, view: View, ground: float, img_hw: tuple[int, int]) -> np.ndarray:
    """Ground up to a horizon or to the walls of a room, by casting a ray through each pixel."""
    v, u = np.mgrid[: img_hw[0], : img_hw[1]].astype(np.float32) + 0.5
    focal = view.focal / _FINE
    rays = np.stack([(u - img_hw[1] / 2) / focal, (v - img_hw[0] / 2) / focal, np.ones_like(u)], -1)
    x, y, z = np.moveaxis(rays @ view.from_level.astype(np.float32), -1, 0)  # level frame
    turn = rng.uniform(-0.9, 0.9)  # of the tiles and walls
    x, z = (
        np.float32(np.cos(turn)) * x - np.float32(np.sin(turn)) * z,
        np.float32(np.sin(turn)) * x + np.float32(np.cos(turn)) * z,
    )
    far = np.float32(ground) / np.maximum(y, 1e-3)  # how far along the ray the ground is
    if rng.random() < 0.5:
        return _room(rng, x, y, z, far, ground)
    sky = colour(rng, low=0.6) * (1 - 0.35 * rng.random()) + 0.25 * (-y[..., None]).clip(0, 1)
    sky = sky + rng.uniform(0, 0.12) * soft_noise(rng, img_hw, 6)[..., None]
    land = _ground(rng, x * far, z * far, far)
    haze = (far / rng.uniform(25, 120)).clip(0, 1)[..., None]
    image = np.where(y[..., None] > 1e-3, land * (1 - haze) + sky * haze, sky)
    if rng.random() < 0.75:  # something stands along the horizon: trees, houses, hills
        cells = int(rng.choice((4, 10, 30)))
        line = cv2.resize(
            rng.random((1, cells)).astype(np.float32), (img_hw[1], 1), interpolation=int(rng.choice((0, 1, 2)))
        )
        elevation = -y / np.hypot(x, z)
        behind = (elevation > -0.01) & (elevation < rng.uniform(0.04, 0.4) * line)
        shade = colour(rng, high=0.6) + 0.08 * soft_noise(rng, img_hw, 50)[..., None]
        image = np.where(behind[..., None], shade, image)
    return image.astype(np.float32)


def _room(
    rng: np.random.Generator, x: np.ndarray, y: np.ndarray, z: np.ndarray, far: np.ndarray, ground: float
) -> np.ndarray:
    """Floor, four walls with a skirting, pictures and windows, and a ceiling."""
    tall = max(2.4, ground + 0.4) + rng.exponential(0.5)
    image = _ground(rng, x * far, z * far, far)
    image[y < 0] = rng.uniform(0.7, 0.97)
    nearest = np.where(y > 0, far, np.float32(tall - ground) / np.maximum(-y, 1e-3)).ravel()
    x, y, z = x.ravel(), y.ravel(), z.ravel()
    paint, skirting = colour(rng, low=0.35), colour(rng)
    for towards, across, depth in ((z, x, (5, 13)), (x, z, (4, 9)), (-x, z, (4, 9)), (-z, x, (4, 9))):
        distance = np.float32(rng.uniform(*depth))
        hit = np.flatnonzero(towards * nearest > distance)
        nearest[hit] = along = distance / towards[hit]
        height = np.float32(ground) - along * y[hit]  # above the floor
        place = along * across[hit]
        wall = np.tile(paint * np.float32(rng.uniform(0.75, 1.05)), (len(hit), 1))
        wall[height < 0.12] = skirting
        for _ in range(rng.integers(0, 5)):
            middle, half = rng.uniform(-5, 5), rng.uniform(0.2, 1.0)
            low, top = (0.0, 2.1) if rng.random() < 0.3 else np.sort(rng.uniform(0.5, 2.4, 2))
            wall[(np.abs(place - middle) < half) & (height > low) & (height < top)] = colour(rng)
        image.reshape(-1, 3)[hit] = wall
    return image * (1.05 - 0.03 * nearest.clip(0, 15)).reshape(*image.shape[:2], 1)


def _ground(rng: np.random.Generator, x: np.ndarray, z: np.ndarray, far: np.ndarray) -> np.ndarray:
    """Tiles, boards, stripes or plain earth, fading where they are too fine to be seen, (H, W, 3)."""
    first = colour(rng, high=0.85)
    second = (first * rng.uniform(0.6, 1.4)).clip(0, 1)
    width, length = rng.uniform(0.15, 1.2), rng.uniform(0.3, 3)
    kind = rng.random()
    if kind < 0.3:  # checks
        mix = np.mod(np.floor(x / width) + np.floor(z / width), 2)
    elif kind < 0.55:  # joints between tiles
        mix = ((np.mod(x, width) < 0.05 * width) | (np.mod(z, length) < 0.05 * length)).astype(np.float32)
    elif kind < 0.7:  # boards
        mix = np.mod(np.sin(np.floor(x / width) * 12.9) * 43.7, 1)
    else:
        mix = np.zeros_like(x)
    mix = 0.5 + (mix - 0.5) * np.exp(-far * np.float32(width**-0.5 / 18))
    ripple, wave, way = (np.float32(rng.uniform(low, 9)) for low in (1, 1, 0))
    rough = np.float32(rng.uniform(0.02, 0.2)) * np.sin(x * ripple + 2 * np.sin(z * wave)) / (1 + far / way)
    rough += np.float32(rng.uniform(0, 0.12)) * soft_noise(rng, (x.shape[0], x.shape[1]), 60)
    return first * (1 + rough)[..., None] + (second - first).astype(np.float32) * mix[..., None].astype(np.float32)


class Thing(NamedTuple):
    """A box with vertical sides. `corners` (8, 3) m, level frame; `shades` (6, 3) RGB of its sides."""

    corners: np.ndarray
    shades: np.ndarray


_SIDES = np.array([(0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6), (0, 2, 6, 4), (1, 3, 7, 5)])


def thing(rng: np.random.Generator, x: float, z: float, ground: float) -> Thing:
    """A pole, a table, a cupboard or the like, on the ground at a place of the level frame (m)."""
    kind = rng.random()
    if kind < 0.3:
        size = (*rng.uniform(0.05, 0.16, 2), rng.uniform(2.0, 4.0))  # a pole
    elif kind < 0.8:
        size = (*rng.uniform(0.3, 1.3, 2), rng.uniform(0.35, 1.0))  # a table, a box, a bench
    else:
        size = (*rng.uniform(0.4, 1.0, 2), rng.uniform(1.2, 2.2))  # a cupboard
    return box(rng, (x, z), ground, size, rng.uniform(0, np.pi))


def box(
    rng: np.random.Generator, place: tuple[float, float], ground: float, size: tuple[float, ...], yaw: float
) -> Thing:
    """A box of random colour: (x, z) of its middle, where the ground is, width, depth and height, all m; rad."""
    unit = np.array([(i, j, k) for i in (-0.5, 0.5) for j in (-0.5, 0.5) for k in (0, 1)]) * size
    around = np.array([(np.cos(yaw), np.sin(yaw)), (-np.sin(yaw), np.cos(yaw))])
    flat = unit[:, :2] @ around + place
    corners = np.stack([flat[:, 0], ground - unit[:, 2], flat[:, 1]], 1)
    shades = colour(rng) * rng.uniform(0.55, 1.1, (6, 1)).astype(np.float32)
    return Thing(corners, shades.clip(0, 1))


def draw_thing(image: np.ndarray, mask: np.ndarray, thing: Thing, view: View) -> None:
    """Paint a box into an image and set what it covers in a mask (H, W) uint8, both in place.

    A box that reaches nearer than 0.3 m to the camera's plane is left out.
    """
    corners = view.project(thing.corners)
    if corners[:, 2].min() < 0.3:
        return
    for side in np.argsort(-corners[_SIDES, 2].mean(1)):  # the farthest first
        outline = (corners[_SIDES[side], :2] * 16).clip(-1e6, 1e6).astype(np.int32)
        cv2.fillConvexPoly(image, outline, (255 * thing.shades[side]).tolist(), cv2.LINE_AA, 4)
        cv2.fillConvexPoly(mask, outline, (1,), cv2.LINE_8, 4)


def finish(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """What a camera adds: white balance, exposure, contrast, blur, grain; the image is not changed."""
    gain = rng.uniform(0.75, 1.2) * rng.uniform(0.92, 1.08, 3)
    curve = (np.linspace(0, 1, 256)[:, None] * gain) ** rng.uniform(0.85, 1.2)
    image = cv2.LUT(image, _to_bytes(curve)[None])
    if rng.random() < 0.35:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.3))
    tile = (np.roll(_GRAIN, rng.integers(0, len(_GRAIN), 2), (0, 1)) * rng.uniform(0, 5)).astype(np.int16)
    grain = np.tile(tile, (-(-image.shape[0] // len(tile)), -(-image.shape[1] // len(tile)), 1))[
        : image.shape[0], : image.shape[1]
    ]
    return cv2.add(image, grain, dtype=cv2.CV_8U)


def colour(rng: np.random.Generator, low: float = 0.15, high: float = 0.95) -> np.ndarray:
    """A colour, more often a dull one, as light as told, (3,) float32."""
    return np.array(colorsys.hsv_to_rgb(rng.random(), rng.beta(1.2, 3), rng.uniform(low, high)), np.float32)


def _to_bytes(image: np.ndarray) -> np.ndarray:
    return (image * 255 + 0.5).clip(0, 255).astype(np.uint8)
