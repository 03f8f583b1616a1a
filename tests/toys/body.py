"""A random body in SMPL format, small, with 24 joints."""

import numpy as np
from scipy.optimize import nnls

from cliff_ms.body.files import Body

PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)


def toy_arrays(vertices=97, betas=10, seed=0):
    """The arrays of a body file, under SMPL's keys."""
    rng = np.random.default_rng(seed)
    return {
        "v_template": rng.standard_normal((vertices, 3)),
        "shapedirs": 0.1 * rng.standard_normal((vertices, 3, betas)),
        "posedirs": 0.02 * rng.standard_normal((vertices, 3, 207)),
        "J_regressor": rng.dirichlet(np.ones(vertices) * 0.1, 24),
        "weights": rng.dirichlet(np.ones(24) * 0.2, vertices),
        "kintree_table": np.array([[4294967295, *PARENTS[1:]], range(24)], np.uint32),
        "f": rng.integers(0, vertices, (50, 3)).astype(np.uint32),
        "extra_vertex_ids": rng.permutation(vertices)[:21].astype(np.int32),
    }


_HEIGHTS = ("ankle", "foot", "toe", "heel", "knee", "hip", "pelvis", "spine", "wrist", "elbow", "shoulder", "thorax",
            "neck", "jaw", "nose", "eye", "ear", "head")  # fmt: skip


def toy_regressor(joints, seeds=(0, 1)):
    """Convex combinations that put joints where their names say, on the templates of all seeds at once."""
    templates = np.concatenate([toy_arrays(seed=seed)["v_template"] for seed in seeds], 1)
    rows = []
    for name in joints:
        x = 0.3 * name.startswith("left") - 0.3 * name.startswith("right")
        y = next(k for k, part in enumerate(_HEIGHTS) if part in name) / len(_HEIGHTS) - 0.5
        places = np.tile([x, y, 0.1], len(seeds))
        rows.append(nnls(np.vstack([templates.T, np.ones(len(templates))]), np.append(places, 1))[0])
    return np.array(rows)


def toy_body(**kwargs):
    arrays = toy_arrays(**kwargs)
    single = {key: arrays[key].astype(np.float32) for key in ("v_template", "shapedirs", "posedirs", "weights")}
    return Body(
        name="toy",
        gender="neutral",
        joint_regressor=arrays["J_regressor"].astype(np.float32),
        parents=PARENTS,
        faces=arrays["f"].astype(np.int32),
        extra_vertex_ids=arrays["extra_vertex_ids"],
        **single,
    )
