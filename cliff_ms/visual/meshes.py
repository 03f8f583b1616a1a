"""Bodies as GLB and OBJ files.

Meshes come in the camera frame (x right, y down, z forward, metres) and are written in glTF's: x right, y up, z towards
the camera, metres, so the camera stays at the origin and looks along -z.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cliff_ms.io.files import atomic_path
from cliff_ms.visual.render import vertex_normals

if TYPE_CHECKING:
    import trimesh

TO_GLTF = np.array([1, -1, -1], np.float32)


def person_mesh(vertices: np.ndarray, faces: np.ndarray, colour: Sequence[float]) -> "trimesh.Trimesh":
    """Make a mesh with normals and a matt material, in glTF's frame.

    Args:
        vertices: shape (V, 3), m, camera frame.
        faces: shape (F, 3).
        colour: RGB in [0, 1], shape (3,).

    Returns:
        The mesh; its vertices and faces are in the order of the arguments.
    """
    import trimesh

    vertices = np.asarray(vertices, np.float32) * TO_GLTF
    # Without a material a viewer must take the mesh for metal (glTF 2.0, 3.9.2), which is black without surroundings.
    material = trimesh.visual.material.PBRMaterial(
        baseColorFactor=[*np.clip(colour, 0, 1), 1.0], metallicFactor=0.0, roughnessFactor=0.8
    )
    return trimesh.Trimesh(
        vertices,
        faces,
        vertex_normals=vertex_normals(vertices, faces),
        visual=trimesh.visual.TextureVisuals(material=material),
        process=False,
    )


def write_glb(path: str | Path, meshes: Sequence["trimesh.Trimesh"]) -> None:
    """Write one or several people as binary glTF, named `person_0`, `person_1`, ... in this order.

    Args:
        path: file to write.
        meshes: from `person_mesh`.
    """
    import trimesh

    people: dict[str, trimesh.parent.Geometry] = {f"person_{k}": mesh for k, mesh in enumerate(meshes)}
    with atomic_path(path) as unfinished:
        unfinished.write_bytes(trimesh.Scene(people).export(file_type="glb", include_normals=True))


def write_obj(path: str | Path, mesh: "trimesh.Trimesh") -> None:
    """Write one person as Wavefront OBJ: vertices, normals and faces, no colour.

    Args:
        path: file to write.
        mesh: from `person_mesh`.
    """
    with atomic_path(path) as unfinished:
        unfinished.write_text(
            str(mesh.export(file_type="obj", include_normals=True, include_color=False, include_texture=False))
        )
