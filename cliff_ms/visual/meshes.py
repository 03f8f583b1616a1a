"""Bodies as GLB and OBJ files.

Meshes come in the camera frame (x right, y down, z forward, metres) and are written in glTF's: x right, y up, z towards
the camera, metres, so the camera stays at the origin and looks along -z.
"""

import math
from collections.abc import Mapping, Sequence
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


def camera_of(focal_length: float, img_hw: Sequence[int]) -> dict:
    """The camera of a picture, as glTF describes it; its node needs no transform: the origin, looking along -z.

    Args:
        focal_length: px.
        img_hw: Height and width of the picture, px.

    Returns:
        An entry for glTF's `cameras`.
    """
    height, width = img_hw
    perspective = {"yfov": 2 * math.atan(height / (2 * focal_length)), "aspectRatio": width / height, "znear": 0.01}
    return {"name": "camera", "type": "perspective", "perspective": perspective}


def write_glb(
    path: str | Path, meshes: Mapping[str, "trimesh.Trimesh"], focal_length: float, img_hw: Sequence[int]
) -> None:
    """Write the people of a picture and its camera as binary glTF.

    Args:
        path: file to write.
        meshes: name -> mesh from `person_mesh`; the name is that of the node. At least one.
        focal_length: px.
        img_hw: Height and width of the picture, px.
    """
    import trimesh

    def add_camera(tree: dict) -> None:
        tree["cameras"] = [camera_of(focal_length, img_hw)]
        tree["scenes"][0]["nodes"].append(len(tree["nodes"]))
        tree["nodes"].append({"name": "camera", "camera": 0})

    people: dict[str, trimesh.parent.Geometry] = dict(meshes)
    scene = trimesh.Scene(people)
    with atomic_path(path) as unfinished:
        unfinished.write_bytes(scene.export(file_type="glb", include_normals=True, tree_postprocessor=add_camera))


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
