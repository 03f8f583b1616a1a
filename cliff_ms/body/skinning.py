"""The body model in NumPy, for any subset of its vertices: quick enough to make training samples on the fly."""

import numpy as np
from scipy import sparse

from cliff_ms.body.files import Body
from cliff_ms.io.errors import InputError
from cliff_ms.keypoints import LANDMARKS, LSP_EXTRA9


def global_rotations(rotmats: np.ndarray, parents: tuple[int, ...]) -> np.ndarray:
    """Rotations of the joints in the body's frame, (B, 24, 3, 3), from those relative to the parent."""
    rotations = rotmats.copy()
    for child, parent in enumerate(parents[1:], 1):
        rotations[:, child] = rotations[:, parent] @ rotmats[:, child]
    return rotations


def rest_shape(body: Body, betas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A body at rest in one shape.

    Args:
        body: The body.
        betas: (N,), no more than the body has.

    Returns:
        Vertices (V, 3) and joints (24, 3), m, float32, in the body's frame.
    """
    vertices = body.v_template + body.shapedirs[..., : len(betas)] @ betas.astype(np.float32)
    return vertices, body.joint_regressor @ vertices


class Skinner:
    """Linear blend skinning (section 3 of SMPL, Loper et al. 2015) of some vertices of a body.

    Args:
        body: The body.
        whole: Skin the whole mesh; otherwise only the few vertices that the landmarks need.

    Raises:
        InputError: If the body has no regressor for SPIN's joints.
    """

    def __init__(self, body: Body, whole: bool = False) -> None:
        if "extra" not in body.regressors:
            raise InputError(
                f"The body '{body.name}' has no regressor for SPIN's keypoints: put J_regressor_extra.npy, shape "
                f"({len(LSP_EXTRA9)}, {body.vertex_count}), beside its file."
            )
        regressor = np.zeros((len(LANDMARKS) - 24, body.vertex_count), np.float32)
        regressor[np.arange(len(body.extra_vertex_ids)), body.extra_vertex_ids] = 1
        regressor[len(body.extra_vertex_ids) :] = body.regressors["extra"]
        vertices = np.arange(body.vertex_count) if whole else np.flatnonzero(regressor.any(0))
        self.regressor = regressor[:, vertices]  # (30, U)
        self.num_betas = min(10, body.shapedirs.shape[2])
        self.parents = body.parents
        shapedirs = body.shapedirs[..., : self.num_betas]
        self.joint_template = body.joint_regressor @ body.v_template  # (24, 3)
        self.joint_shapedirs = np.einsum("jv,vkn->njk", body.joint_regressor, shapedirs).reshape(self.num_betas, -1)
        # Template, shape and pose blend shapes as one (3 U, 1 + N + 207) matrix.
        parts = (body.v_template[vertices, :, None], shapedirs[vertices], body.posedirs[vertices])
        blend = np.concatenate(parts, -1).reshape(3 * len(vertices), -1)
        self.blend = sparse.csr_matrix(blend) if whole else blend  # most of the bundled body's posedirs are zero
        self.weights = np.ascontiguousarray(body.weights[vertices])  # (U, 24)

    def rest_joints(self, betas: np.ndarray) -> np.ndarray:
        """Joints at rest, (B, num_betas) -> (B, 24, 3) m; the first is the point that the root turns about."""
        return self.joint_template + (betas @ self.joint_shapedirs).reshape(-1, 24, 3)

    def __call__(self, betas: np.ndarray, rotmats: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pose bodies.

        Args:
            betas: (B, num_betas) float32.
            rotmats: (B, 24, 3, 3) float32, relative to the parent.

        Returns:
            Vertices (B, U, 3) m, landmarks (B, 54, 3) m in the order of LANDMARKS, both in the body's frame, and the
            rotations of the joints in that frame, (B, 24, 3, 3).
        """
        batch = len(betas)
        rest = self.rest_joints(betas)
        feature = np.concatenate(
            [np.ones((batch, 1), np.float32), betas, (rotmats[:, 1:] - np.eye(3, dtype=np.float32)).reshape(batch, -1)],
            axis=1,
        )
        shaped = (self.blend @ feature.T).T.reshape(batch, -1, 3)  # (B, U, 3) at rest
        rotations, joints = global_rotations(rotmats, self.parents), rest.copy()
        for child, parent in enumerate(self.parents[1:], 1):
            bone = (rest[:, child] - rest[:, parent])[..., None]
            joints[:, child] = joints[:, parent] + (rotations[:, parent] @ bone)[..., 0]
        offsets = joints[..., None] - rotations @ rest[..., None]  # a rest point goes to R v + offset
        transforms = np.concatenate([rotations, offsets], -1).reshape(batch, 24, 12)
        blended = (self.weights @ transforms).reshape(batch, -1, 3, 4)
        vertices = blended[..., 3].copy()
        for axis in range(3):
            vertices += blended[..., axis] * shaped[..., axis : axis + 1]
        return vertices, np.concatenate([joints, self.regressor @ vertices], axis=1), rotations
