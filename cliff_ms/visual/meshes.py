"""Bodies as OBJ files; `gltf` writes what holds more.

Meshes come in the camera frame (x right, y down, z forward, metres) and are written in glTF's: x right, y up, z towards
the camera, metres, so the camera stays at the origin and looks along -z.
"""

from pathlib import Path

import numpy as np

from cliff_ms.io.files import atomic_path
from cliff_ms.visual.render import vertex_normals

TO_GLTF = np.array([1, -1, -1], np.float32)


def write_obj(path: str | Path, vertices: np.ndarray, faces: np.ndarray) -> None:
    """Write one person as Wavefront OBJ: vertices, normals and faces, no colour.

    Args:
        path: file to write.
        vertices: shape (V, 3), m, camera frame.
        faces: shape (F, 3).
    """
    import trimesh

    vertices = np.asarray(vertices, np.float32) * TO_GLTF
    mesh = trimesh.Trimesh(vertices, faces, vertex_normals=vertex_normals(vertices, faces), process=False)
    with atomic_path(path) as unfinished:
        unfinished.write_text(
            str(mesh.export(file_type="obj", include_normals=True, include_color=False, include_texture=False))
        )
