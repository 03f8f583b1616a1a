"""Software renderer: a z-buffer in NumPy, for overlays, side views and synthetic people. No GPU, no system package.

Camera frame: x right, y down, z forward, metres. Image frame: pixels, the centre of pixel (0, 0) is at (0.5, 0.5), so
the principal point of a full frame is (W/2, H/2). Faces wind counter-clockwise seen from outside, as SMPL's do. Colours
are RGB in [0, 1]; images are (H, W, 3) uint8 RGB.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

NEAR = 0.05  # m
# Towards the light: over the left shoulder of the photographer.
LIGHT = (-0.35, -0.6, -0.72)
AMBIENT = 0.4  # share of the light that comes from everywhere
# Light blue, orange, green, pink, yellow, violet, teal, red: far apart in hue, alike in lightness.
PALETTE = (
    (0.55, 0.73, 0.94),
    (0.97, 0.69, 0.46),
    (0.60, 0.85, 0.58),
    (0.95, 0.63, 0.76),
    (0.93, 0.85, 0.49),
    (0.75, 0.66, 0.93),
    (0.47, 0.83, 0.81),
    (0.93, 0.55, 0.52),
)

CHUNK = 1 << 16  # candidate pixels at a time, about 60 bytes each: the temporaries stay near the caches
_EDGE = np.float32(1e-5)  # barycentric slack; without it single pixels on shared edges belong to no face
_SMOOTH_BELOW = 640_000  # px; above, a jagged outline is too fine to notice, and four times the samples cost too much

Mesh = tuple[np.ndarray, Sequence[float] | np.ndarray]


@dataclass(frozen=True)
class Fragments:
    """The visible surface of a mesh, one row per covered pixel (N of them, each pixel at most once).

    Attributes:
        pixel: flat pixel index `row * W + column`, shape (N,), intp.
        face: row of `faces`, shape (N,), intp.
        bary: perspective-correct weights of the face's three corners, shape (N, 3), float32, sum 1.
        z: depth along the optical axis, shape (N,), m, float32.
        img_hw: height and width of the image, px.
    """

    pixel: np.ndarray
    face: np.ndarray
    bary: np.ndarray
    z: np.ndarray
    img_hw: tuple[int, int]

    @property
    def depth(self) -> np.ndarray:
        """Depth, shape (H, W), m, float32; infinite where nothing is."""
        image = np.full(self.img_hw[0] * self.img_hw[1], np.float32(np.inf))
        image[self.pixel] = self.z
        return image.reshape(self.img_hw)

    def interpolate(self, values: np.ndarray, faces: np.ndarray) -> np.ndarray:
        """Interpolate what is known at the vertices, correct for perspective.

        Args:
            values: shape (V, C).
            faces: the faces that were rasterized, shape (F, 3).

        Returns:
            Shape (N, C), the type of `values`.
        """
        corners = faces[self.face]
        weights = self.bary.astype(values.dtype, copy=False)
        result = weights[:, :1] * np.take(values, corners[:, 0], axis=0)
        for k in (1, 2):
            result += weights[:, k : k + 1] * np.take(values, corners[:, k], axis=0)
        return result


def rasterize(vertices: np.ndarray, faces: np.ndarray, focal_length: float, img_hw: tuple[int, int]) -> Fragments:
    """Find what a pinhole camera sees of a closed mesh.

    A pixel is covered when its centre is. Faces that are seen from behind are left out; those with a corner nearer than
    `NEAR` (0.05 m) or behind the camera are dropped, not clipped.

    Args:
        vertices: shape (V, 3), m, camera frame.
        faces: rows of `vertices`, shape (F, 3).
        focal_length: px.
        img_hw: height and width, px.

    Returns:
        The visible fragments.

    Raises:
        ValueError: a wrong shape, or a vertex that is not finite.
    """
    vertices, faces = np.asarray(vertices, np.float32), np.asarray(faces, np.intp)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        raise ValueError(
            f"For 'rasterize', 'vertices' and 'faces' must have shapes (V, 3) and (F, 3), "
            f"but got {vertices.shape} and {faces.shape}."
        )
    if not np.isfinite(vertices).all():
        raise ValueError("For 'rasterize', all 'vertices' must be finite.")
    height, width = int(img_hw[0]), int(img_hw[1])
    triangles = _set_up(vertices, faces, focal_length, (height, width))

    nearest = np.zeros(height * width, np.float32)  # 1/z is linear in the image; the larger, the nearer
    ends = np.cumsum(triangles.count)
    found, start = [], 0
    while start < len(ends):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + CHUNK, side="right")))
        found.append(_fill(triangles, start, stop, nearest, width))
        start = stop
    if not found:
        none = np.zeros((0, 3), np.float32)
        return Fragments(np.zeros(0, np.intp), np.zeros(0, np.intp), none, none[:, 0], (height, width))
    pixel, row, w0, w1, inverse_z = (np.concatenate(parts) for parts in zip(*found, strict=True))

    front = np.flatnonzero(inverse_z >= nearest[pixel])
    # Equal depths on a shared edge: the last one written keeps the pixel.
    owner = np.empty(height * width, np.intp)
    owner[pixel[front]] = front
    front = front[owner[pixel[front]] == front]
    pixel, row, z = pixel[front], row[front], 1 / inverse_z[front]
    w0, w1 = w0[front], w1[front]
    bary = np.stack(
        [w * corner[row] * z for w, corner in zip((w0, w1, 1 - w0 - w1), triangles.inverse_z, strict=True)], axis=1
    )
    return Fragments(pixel, triangles.face[row], bary, z, (height, width))


class _Triangles(NamedTuple):
    """What is left of the faces after culling (M of them), ready to be filled."""

    face: np.ndarray  # (M,) row of `faces`
    first: np.ndarray  # (M,) flat index of the bounding box's first pixel
    box_width: np.ndarray  # (M,) px
    count: np.ndarray  # (M,) pixels in the bounding box
    edges: np.ndarray  # (6, M) w0 = a0 x + b0 y + c0 and w1 = a1 x + b1 y + c1, (x, y) px from `first`
    inverse_z: np.ndarray  # (3, M) 1/z of the corners


def _set_up(vertices: np.ndarray, faces: np.ndarray, focal_length: float, img_hw: tuple[int, int]) -> _Triangles:
    """Project, cull, and make the edge functions. Python floats throughout: a NumPy one would promote to float64."""
    inverse_z = 1 / np.maximum(vertices[:, 2], np.float32(NEAR))
    scale = float(focal_length) * inverse_z
    # Half a pixel off, so that pixel centres are whole numbers here.
    x = (vertices[:, 0] * scale + (img_hw[1] / 2 - 0.5))[faces]  # (F, 3)
    y = (vertices[:, 1] * scale + (img_hw[0] / 2 - 0.5))[faces]
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    facing = -area > 1e-9  # y points down, so a face that shows its outside has a negative area
    low, high = (
        np.stack([np.clip(reach(x), 0, img_hw[1]), np.clip(reach(y), 0, img_hw[0])], axis=1).astype(np.int32)
        for reach in (lambda p: np.ceil(p.min(axis=1)), lambda p: np.floor(p.max(axis=1)) + 1)
    )
    size = high - low
    keep = np.flatnonzero(facing & (size > 0).all(axis=1) & (vertices[:, 2] > NEAR)[faces].all(axis=1))

    low, size, area, corners = low[keep], size[keep], area[keep], inverse_z[faces[keep].T]
    (xa, xb, xc), (ya, yb, yc), (x0, y0) = x[keep].T, y[keep].T, low.T.astype(np.float32)
    a0, b0 = (yb - yc) / area, (xc - xb) / area
    a1, b1 = (yc - ya) / area, (xa - xc) / area
    edges = np.stack([a0, b0, a0 * (x0 - xb) + b0 * (y0 - yb), a1, b1, a1 * (x0 - xc) + b1 * (y0 - yc)])
    first = low[:, 1].astype(np.intp) * img_hw[1] + low[:, 0]
    return _Triangles(keep, first, size[:, 0], size[:, 0] * size[:, 1], edges, corners)


def _fill(triangles: _Triangles, start: int, stop: int, nearest: np.ndarray, width: int) -> tuple[np.ndarray, ...]:
    """Fill the triangles [start, stop), raise `nearest` to their 1/z; give pixel, row, w0, w1, 1/z of what was hit."""
    count = triangles.count[start:stop]
    row = np.repeat(np.arange(start, stop), count)  # one entry per candidate pixel from here on
    offset = np.arange(len(row), dtype=np.int32) - np.repeat((np.cumsum(count) - count).astype(np.int32), count)
    dy = offset // triangles.box_width[row]
    dx = offset - dy * triangles.box_width[row]
    x, y = dx.astype(np.float32), dy.astype(np.float32)
    a0, b0, c0, a1, b1, c1 = (np.repeat(edge[start:stop], count) for edge in triangles.edges)
    w0, w1 = a0 * x + b0 * y + c0, a1 * x + b1 * y + c1
    inside = np.flatnonzero((w0 >= -_EDGE) & (w1 >= -_EDGE) & (w0 + w1 <= 1 + _EDGE))
    row, w0, w1 = row[inside], w0[inside], w1[inside]
    pixel = triangles.first[row] + (dy[inside] * width + dx[inside])
    za, zb, zc = (corner[row] for corner in triangles.inverse_z)
    inverse_z = w0 * (za - zc) + w1 * (zb - zc) + zc
    np.maximum.at(nearest, pixel, inverse_z)
    front = np.flatnonzero(inverse_z >= nearest[pixel])
    return pixel[front], row[front], w0[front], w1[front], inverse_z[front]


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals, each the area-weighted mean of the faces around a vertex.

    Args:
        vertices: shape (V, 3), any frame.
        faces: shape (F, 3).

    Returns:
        Shape (V, 3), float32, outward for counter-clockwise faces; zero at a vertex without a face.
    """
    vertices = np.asarray(vertices, np.float32)
    a, b, c = (np.take(vertices, faces[:, k], axis=0) for k in range(3))
    u, v = b - a, c - a
    normals = np.empty((3, len(vertices)))
    for axis, (i, j) in enumerate(((1, 2), (2, 0), (0, 1))):
        of_face = u[:, i] * v[:, j] - u[:, j] * v[:, i]  # twice the face's area times its normal
        normals[axis] = sum(np.bincount(faces[:, k], of_face, len(vertices)) for k in range(3))
    length = np.sqrt((normals**2).sum(axis=0))
    return (normals / np.maximum(length, 1e-20)).T.astype(np.float32)


def render_meshes(
    image: np.ndarray,
    meshes: Sequence[Mesh],
    faces: np.ndarray,
    focal_length: float,
    opacity: float = 1.0,
    supersample: int = 2,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw several people who share a topology over an image, with one z-buffer and smooth shading.

    Args:
        image: shape (H, W, 3), uint8 RGB; not changed.
        meshes: per person the vertices, shape (V, 3), m, camera frame, and the colour, shape (3,) or (V, 3), [0, 1].
        faces: shape (F, 3), shared by all.
        focal_length: px.
        opacity: share of the mesh's colour in the result, [0, 1].
        supersample: samples per pixel along each axis, for smooth outlines.

    Returns:
        The image, shape (H, W, 3), uint8 RGB, and how much of each pixel the people cover, shape (H, W), float32 in
        [0, 1].
    """
    height, width = image.shape[:2]
    image, coverage = image.copy(), np.zeros((height, width), np.float32)
    if not meshes:
        return image, coverage
    vertices, colours, faces = _join(meshes, faces)
    size = (height * supersample, width * supersample)
    seen = rasterize(vertices, faces, focal_length * supersample, size)
    if not len(seen.pixel):
        return image, coverage

    # Only the box of whole pixels around what was hit is blended.
    y, x = np.divmod(seen.pixel, size[1])
    x0, y0 = x.min() // supersample, y.min() // supersample
    x1, y1 = x.max() // supersample + 1, y.max() // supersample + 1
    layer = np.zeros(((y1 - y0) * supersample, (x1 - x0) * supersample, 4), np.float32)  # colour times cover, cover
    rows = (y - y0 * supersample) * layer.shape[1] + (x - x0 * supersample)
    layer.reshape(-1, 4)[rows, :3] = seen.interpolate(colours, faces)
    layer.reshape(-1, 4)[rows, 3] = 1
    if supersample > 1:
        layer = cv2.resize(layer, (int(x1 - x0), int(y1 - y0)), interpolation=cv2.INTER_AREA)
    cover, under = layer[..., 3:], image[y0:y1, x0:x1]
    blend = under * (1 - np.float32(opacity) * cover) + np.float32(255 * opacity) * layer[..., :3]
    image[y0:y1, x0:x1] = np.clip(blend + 0.5, 0, 255)
    coverage[y0:y1, x0:x1] = cover[..., 0]
    return image, coverage


def render_overlay(image: np.ndarray, meshes: Sequence[Mesh], faces: np.ndarray, focal_length: float) -> np.ndarray:
    """Draw the people over the image they come from, slightly see-through.

    Args:
        image: shape (H, W, 3), uint8 RGB.
        meshes: per person the vertices, shape (V, 3), m, full-frame camera, and the colour, shape (3,) or (V, 3).
        faces: shape (F, 3), shared by all.
        focal_length: of the full frame, px.

    Returns:
        Shape (H, W, 3), uint8 RGB.
    """
    return render_meshes(image, meshes, faces, focal_length, opacity=0.9, supersample=_supersample(image.shape[:2]))[0]


def render_side(meshes: Sequence[Mesh], faces: np.ndarray, focal_length: float, img_hw: tuple[int, int]) -> np.ndarray:
    """Draw the same people seen from the right of the image: depth runs from left (near the camera) to right (far).

    The group is turned by 90 degrees about the vertical axis through its centroid, so everybody keeps their place
    relative to the others, and is then moved as near as it can be with everybody in the image, for a lens of twice
    the focal length.

    Args:
        meshes: per person the vertices, shape (V, 3), m, full-frame camera, and the colour, shape (3,) or (V, 3).
        faces: shape (F, 3), shared by all.
        focal_length: of the full frame, px.
        img_hw: height and width of the image to make, px.

    Returns:
        Shape (H, W, 3), uint8 RGB, on a light background.
    """
    image = np.full((*img_hw, 3), 244, np.uint8)
    if not meshes:
        return image
    group = np.stack([np.asarray(vertices, np.float32) for vertices, _ in meshes])  # (P, V, 3)
    group = (group - group.mean(axis=(0, 1))) @ np.array([[0, 0, -1], [0, 1, 0], [1, 0, 0]], np.float32)
    low, high = group.min(axis=(0, 1)), group.max(axis=(0, 1))
    group[..., :2] -= (low[:2] + high[:2]) / 2
    focal_length = 2 * focal_length  # a flatter perspective: sizes compare across the group
    # |x| f / (z + shift) <= 0.46 W for every vertex, and the same for y, leaves a margin of 4 %.
    reach = np.abs(group[..., :2]) * np.float32(focal_length) / (0.46 * np.array(img_hw[::-1], np.float32))
    group[..., 2] += max((reach.max(axis=-1) - group[..., 2]).max(), 2 * NEAR - low[2])
    turned = [(vertices, colour) for vertices, (_, colour) in zip(group, meshes, strict=True)]
    return render_meshes(image, turned, faces, focal_length, supersample=_supersample(img_hw))[0]


def _supersample(img_hw: tuple[int, ...]) -> int:
    return 2 if img_hw[0] * img_hw[1] <= _SMOOTH_BELOW else 1


def _join(meshes: Sequence[Mesh], faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One mesh from many: vertices and lit colours (P V, 3), faces (P F, 3)."""
    direction = np.asarray(LIGHT, np.float32) / np.float32(np.linalg.norm(LIGHT))
    vertices = np.stack([np.asarray(vertices, np.float32) for vertices, _ in meshes])  # (P, V, 3)
    colours = np.empty_like(vertices)
    for lit, person, (_, colour) in zip(colours, vertices, meshes, strict=True):
        facing = vertex_normals(person, faces) @ direction
        # Half of the lamp wraps around: the dark side keeps its shape.
        lamp = 0.5 * np.maximum(facing, 0) + 0.25 * (1 + facing)
        lit[:] = np.asarray(colour, np.float32) * (AMBIENT + (1 - AMBIENT) * lamp)[:, None]
    shifts = np.arange(len(meshes), dtype=np.intp)[:, None, None] * vertices.shape[1]
    return vertices.reshape(-1, 3), colours.reshape(-1, 3), (np.asarray(faces, np.intp) + shifts).reshape(-1, 3)
