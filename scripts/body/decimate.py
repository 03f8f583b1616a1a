"""Mirror-symmetric mesh decimation by half-edge collapse.

Kept vertices stay where they are, so everything that is known per vertex (targets, weights) is simply indexed. Only the
left half is worked on, whose border is the midline; the right half is its mirror image. Vertices that nobody can see
(mouth, eye sockets, nostrils) go first, which closes lips and eyes.

Quadric error metric: Garland and Heckbert, "Surface Simplification Using Quadric Error Metrics", SIGGRAPH 1997.
"""

import heapq
from dataclasses import dataclass, field

import numpy as np

from body.assets import MIRROR

_REFLECT = np.outer(np.append(MIRROR, 1.0), np.append(MIRROR, 1.0))  # quadric -> quadric of the mirror image
_SPREAD = 2e-2  # weight of the edge length beside the quadric error: keeps flat regions from emptying
_MAX_VALENCE = 10


def split_quads(quads: np.ndarray, vertices: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Cut quads along their shorter diagonal, the left ones, and mirror the triangles to the right.

    Args:
        quads: (Q, 4) int; none crosses the midline.
        vertices: (V, 3) m.
        mirror: (V,) int.

    Returns:
        (2 Q, 3) int triangles, the left half first.
    """
    left = quads[vertices[quads, 0].mean(1) > 0]
    corners = vertices[left]
    first = np.linalg.norm(corners[:, 0] - corners[:, 2], axis=1)
    other = np.linalg.norm(corners[:, 1] - corners[:, 3], axis=1)
    order = np.where((first <= other)[:, None], [[0, 1, 2, 0, 2, 3]], [[1, 2, 3, 1, 3, 0]])
    triangles = np.take_along_axis(left, order, 1).reshape(-1, 3)
    return np.concatenate([triangles, mirror[triangles][:, ::-1]])


def hidden_vertices(
    vertices: np.ndarray, triangles: np.ndarray, occluders: np.ndarray, mirror: np.ndarray
) -> np.ndarray:
    """Find the vertices of a surface whose outer side cannot be seen from any of 60 directions all around.

    Args:
        vertices: (V, 3) m.
        triangles: (F, 3) int, the surface.
        occluders: (G, 3) int, triangles that can be in front.
        mirror: (V,) int.

    Returns:
        (V,) bool, mirror-symmetric; False for vertices that are not on the surface.
    """
    cell, tolerance = 0.001, 0.001  # pixel of the orthographic depth maps, and the depth that still counts as in front
    points = _dense_points(vertices[occluders], 0.7 * cell)
    normals = vertex_normals(vertices, triangles)
    directions = sphere_directions(30)
    seen = np.zeros(len(vertices), bool)
    for direction in np.concatenate([directions, directions * MIRROR]):
        side = np.cross(direction, np.eye(3)[np.abs(direction).argmin()])
        plane = np.stack([side / np.linalg.norm(side), np.cross(direction, side / np.linalg.norm(side))], 1)
        grid, pixel = (np.floor(xyz @ plane / cell).astype(int) for xyz in (points, vertices))
        low, high = grid.min(0), grid.max(0)
        width = int(high[1] - low[1]) + 1
        front = np.full(int(high[0] - low[0] + 1) * width, -np.inf)
        np.maximum.at(front, (grid - low) @ [width, 1], points @ direction)
        facing = np.flatnonzero((normals @ direction > 0.1) & (pixel >= low).all(1) & (pixel <= high).all(1))
        seen[facing] |= vertices[facing] @ direction >= front[(pixel[facing] - low) @ [width, 1]] - tolerance
    surface = np.isin(np.arange(len(vertices)), triangles)
    return surface & ~seen & ~seen[mirror]


def vertex_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals, (V, 3); zero for vertices without a triangle."""
    corners = vertices[triangles]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, triangles[:, corner], normal)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def _dense_points(corners: np.ndarray, spacing: float) -> np.ndarray:
    edges = np.linalg.norm(corners - np.roll(corners, 1, 1), axis=2).max(1)
    counts = np.ceil(edges / spacing).astype(int)
    points = []
    for count in np.unique(counts):
        first, second = np.array([(i, j) for i in range(count + 1) for j in range(count + 1 - i)]).T / count
        points.append((np.stack([first, second, 1 - first - second], 1) @ corners[counts == count]).reshape(-1, 3))
    return np.concatenate(points)


def sphere_directions(count: int) -> np.ndarray:
    """Spread unit vectors evenly over the sphere (Fibonacci spiral), shape (count, 3)."""
    z = 1 - (2 * np.arange(count) + 1) / count
    angle = np.pi * (3 - np.sqrt(5)) * np.arange(count)
    radius = np.sqrt(1 - z * z)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], 1)


def decimate(
    vertices: np.ndarray,
    triangles: np.ndarray,
    mirror: np.ndarray,
    target: int,
    locked: np.ndarray,
    hidden: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Collapse edges until `target` vertices are left.

    Args:
        vertices: (V, 3) m, exactly mirror-symmetric, the midline at x = 0.
        triangles: (F, 3) int, closed and mirror-symmetric, from `split_quads`.
        mirror: (V,) int.
        target: Number of vertices to keep.
        locked: (V,) bool, vertices that stay.
        hidden: (V,) bool, vertices that go first.

    Returns:
        The kept vertices (target,), increasing, and the triangles (F', 3) in the new numbering.

    Raises:
        ValueError: No allowed collapse is left before `target` is reached.
    """
    left = triangles[vertices[triangles, 0].mean(1) > 0]
    half = _HalfMesh(vertices, left, border=mirror == np.arange(len(mirror)), locked=locked, hidden=hidden)
    half.collapse_to(target)
    left = np.array(sorted(half.faces.values()))
    triangles = np.concatenate([left, mirror[left][:, ::-1]])
    kept, triangles = np.unique(triangles, return_inverse=True)
    return kept, triangles.reshape(-1, 3)


@dataclass
class _HalfMesh:
    """The left half as a manifold with border. `border` vertices count once in the whole mesh, the others twice."""

    vertices: np.ndarray
    left: np.ndarray
    border: np.ndarray
    locked: np.ndarray
    hidden: np.ndarray
    faces: dict[int, tuple[int, int, int]] = field(init=False)
    fans: dict[int, set[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.faces = {index: tuple(face) for index, face in enumerate(self.left.tolist())}
        self.fans = {vertex: set() for vertex in np.unique(self.left).tolist()}
        for index, face in self.faces.items():
            for vertex in face:
                self.fans[vertex].add(index)
        self.quadrics = self._vertex_quadrics()
        self.version = dict.fromkeys(self.fans, 0)
        self.heap: list[tuple[float, int, int, int, int]] = []

    def collapse_to(self, target: int) -> None:
        count = sum(1 if self.border[vertex] else 2 for vertex in self.fans)
        for vertex in self.fans:
            self._push(vertex)
        while count > target:
            if not self.heap:
                raise ValueError(f"Decimation stopped at {count} vertices, before the {target} asked for.")
            _, removed, kept, *versions = heapq.heappop(self.heap)
            stale = removed not in self.fans or kept not in self.fans
            if stale or versions != [self.version[removed], self.version[kept]]:
                continue
            step = 1 if self.border[removed] else 2
            if count - step < target or not self._allowed(removed, kept):
                continue
            self._collapse(removed, kept)
            count -= step

    def _vertex_quadrics(self) -> np.ndarray:
        corners = self.vertices[self.left]
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        area = np.linalg.norm(normal, axis=1) / 2
        normal /= np.maximum(2 * area, 1e-12)[:, None]
        plane = np.concatenate([normal, -(normal * corners[:, 0]).sum(1, keepdims=True)], 1)
        quadric = plane[:, :, None] * plane[:, None] * (area / 3)[:, None, None]
        quadrics = np.zeros((len(self.vertices), 4, 4))
        for corner in range(3):
            np.add.at(quadrics, self.left[:, corner], quadric)
        self.areas = np.bincount(self.left.ravel(), np.repeat(area / 3, 3), len(self.vertices))
        return np.where(self.border[:, None, None], quadrics + quadrics * _REFLECT, quadrics)

    def _neighbours(self, vertex: int) -> set[int]:
        return {other for face in self.fans[vertex] for other in self.faces[face]} - {vertex}

    def _push(self, removed: int) -> None:
        if self.locked[removed]:
            return
        for kept in self._neighbours(removed):
            if self.border[removed] and not self.border[kept]:
                continue
            length = float(((self.vertices[removed] - self.vertices[kept]) ** 2).sum())
            if self.hidden[removed]:
                cost = length * 1e-12
            else:
                point = np.append(self.vertices[kept], 1.0)
                cost = float(point @ (self.quadrics[removed] + self.quadrics[kept]) @ point)
                cost += _SPREAD * length * self.areas[removed]
            heapq.heappush(self.heap, (cost, removed, kept, self.version[removed], self.version[kept]))

    def _allowed(self, removed: int, kept: int) -> bool:
        ring, other = self._neighbours(removed), self._neighbours(kept)
        common = ring & other
        shared = self.fans[removed] & self.fans[kept]
        # Link condition; two border vertices must share a border edge, which has one face.
        on_border = bool(self.border[removed])
        if len(common) != len(shared) or len(shared) != (1 if on_border else 2):
            return False
        # An inner vertex must not carry an edge between two border vertices: its mirror image would be the same edge.
        if not on_border and self.border[kept] and any(self.border[vertex] for vertex in ring - common - {kept}):
            return False
        if len(ring | other) - 2 > _MAX_VALENCE or min(len(self._neighbours(v)) for v in common) <= 3:
            return False
        return bool(self.hidden[removed]) or self._keeps_shape(removed, kept, shared)

    def _keeps_shape(self, removed: int, kept: int, shared: set[int]) -> bool:
        faces = [self.faces[face] for face in self.fans[removed] - shared]
        before = self.vertices[np.array(faces)]
        after = self.vertices[np.array([[kept if v == removed else v for v in face] for face in faces])]
        old, new = (np.cross(t[:, 1] - t[:, 0], t[:, 2] - t[:, 0]) for t in (before, after))
        old_area, new_area = np.linalg.norm(old, axis=1), np.linalg.norm(new, axis=1)
        if ((old * new).sum(1) < 0.5 * old_area * new_area).any():  # a face turns by more than 60 degrees
            return False
        old_edge, new_edge = (((t - np.roll(t, 1, 1)) ** 2).sum(2).max(1) for t in (before, after))
        shape = new_area / new_edge  # 0.87 for an equilateral triangle
        return bool((shape > np.minimum(0.25, 0.9 * old_area / old_edge)).all())

    def _collapse(self, removed: int, kept: int) -> None:
        around = self._neighbours(removed)
        for index in self.fans.pop(removed):
            face = self.faces[index]
            if kept in face:
                del self.faces[index]
                for vertex in face:
                    if vertex != removed:
                        self.fans[vertex].discard(index)
            else:
                self.faces[index] = tuple(kept if vertex == removed else vertex for vertex in face)
                self.fans[kept].add(index)
        gained = self.quadrics[removed]
        if self.border[kept] and not self.border[removed]:
            gained = gained + gained * _REFLECT  # the mirror image collapses too
        self.quadrics[kept] = self.quadrics[kept] + gained
        self.areas[kept] += self.areas[removed]
        for vertex in around:
            self.version[vertex] += 1
        for vertex in around | self._neighbours(kept):
            self._push(vertex)
