"""Keypoints of the body and how they move with pose and shape: float64 NumPy, for a few points at a time.

Every keypoint is a point skinned to bones: a vertex of the surface with the body's weights, a joint of the tree as a
point that follows its own bone only. With the template v, shape blend shapes S, pose blend shapes B, rest joints
j(beta), posed joints J and rotations G in the body's frame, section 3 of SMPL (Loper et al. 2015) reads

    rest point       p = v + S beta + B vec(R - I)
    joint            J_b = sum over the chain from the root to b of G_parent (j - j_parent)
    as bone b has it X_b = J_b + G_b (p - j_b)
    keypoint         X = sum_b w_b X_b

Its derivatives follow from turning a joint by a small w in its own frame, R_j <- R_j exp(w): all X_b on the bones at
and below j turn about J_j by G_j w, and R_j changes by R_j [w]_x, which the pose blend shapes see (A = sum_b w_b G_b):

    dX / dw_j  = -[sum_{b at or below j} w_b (X_b - J_j)]_x G_j + A dp / dw_j
    dX / dbeta = A S + sum_b w_b (dJ_b / dbeta - G_b dj_b / dbeta)
"""

import numpy as np

from cliff_ms.body.files import Body
from cliff_ms.body.markers import place_markers
from cliff_ms.body.skinning import global_rotations
from cliff_ms.keypoints import SMPL45, index_map

NUM_BETAS = 10
_JOINTS = 24
_GENERATORS = np.cross(np.eye(3)[:, None], np.eye(3)).swapaxes(1, 2)  # [e]_x of the three axes e


def cross_matrix(vectors: np.ndarray) -> np.ndarray:
    """[v]_x with [v]_x u = v x u, (..., 3) -> (..., 3, 3)."""
    return np.tensordot(vectors, _GENERATORS, 1)


class Kinematics:
    """Some keypoints of a body with their derivatives, see the top of this file.

    Args:
        body: The body, with at least 10 betas.
        names: K of `keypoints.SMPL45`.
        as_detected: Take those of COCO's for what detectors mean by them, see `markers`.
    """

    def __init__(self, body: Body, names: tuple[str, ...], as_detected: bool = False) -> None:
        regressor = body.joint_regressor.astype(np.float64)
        chosen = index_map(SMPL45, names)

        def keypoints(of_joints: np.ndarray, of_vertices: np.ndarray) -> np.ndarray:
            return np.concatenate([of_joints, of_vertices[body.extra_vertex_ids]])[chosen]

        shaped = np.concatenate([body.v_template[..., None], body.shapedirs[..., :NUM_BETAS]], -1)  # (V, 3, 1 + 10)
        rest = np.tensordot(regressor, shaped, 1)
        self._parents = body.parents
        self._rest_joints = rest  # (24, 3, 1 + 10)
        self._bones = rest - np.concatenate([np.zeros_like(rest[:1]), rest[list(body.parents[1:])]])
        self._moves = _descendants(body.parents)  # (24, 24): turning joint j moves bone b
        self._weights = keypoints(np.eye(_JOINTS), body.weights)  # (K, 24)
        self._shaped = keypoints(rest, shaped)  # (K, 3, 1 + 10)
        self._posedirs = keypoints(np.zeros((_JOINTS, 3, 9 * (_JOINTS - 1))), body.posedirs)  # (K, 3, 207)
        if as_detected:
            marked, bones, offsets = place_markers(names)
            self._shaped[marked, :, 0] += offsets
            self._weights[marked] = np.eye(_JOINTS)[bones]
            self._posedirs[marked] = 0
        self._turned_weights = self._weights @ self._moves.T  # (K, 24)
        # B vec(R_j [e_c]_x) is linear in R_j, for each joint j and axis c: (j, entries of R_j, K 3 c).
        posedirs = self._posedirs.reshape(-1, 3, _JOINTS - 1, 3, 3)
        turned = np.einsum("kijab,cmb->jamkic", posedirs, _GENERATORS)
        self._turned_posedirs = turned.reshape(_JOINTS - 1, 9, -1)

    def __call__(self, rotmats: np.ndarray, betas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints and their derivatives.

        Args:
            rotmats: (P, 24, 3, 3) float64, relative to the parent.
            betas: (P, 10) float64.

        Returns:
            Keypoints (P, K, 3) m in the body's frame, and their derivatives (P, K, 3, 72 + 10): by a small turn of each
            joint in its own frame, rad, joint by joint; then by the betas.
        """
        count = len(betas)
        shape = np.concatenate([np.ones((count, 1)), betas], 1)[:, None, :, None]  # (P, 1, 1 + 10, 1)
        rotations = global_rotations(rotmats, self._parents)
        of_parents = np.concatenate([np.broadcast_to(np.eye(3), (count, 1, 3, 3)), rotations[:, self._parents[1:]]], 1)
        chain = (of_parents @ self._bones).reshape(count, _JOINTS, -1)
        joints_by_shape = (self._moves.T @ chain).reshape(count, _JOINTS, 3, -1)
        offsets_by_shape = joints_by_shape - rotations @ self._rest_joints  # a rest point p goes to G p + offset
        joints, offsets = ((array @ shape)[..., 0] for array in (joints_by_shape, offsets_by_shape))  # (P, 24, 3)
        pose_feature = (rotmats[:, 1:] - np.eye(3)).reshape(count, 1, -1, 1)
        rest = (self._shaped @ shape + self._posedirs @ pose_feature)[..., 0]  # (P, K, 3)

        by_bone = (rotations[:, None] @ rest[:, :, None, :, None])[..., 0] + offsets[:, None]  # (P, K, 24, 3)
        by_bone *= self._weights[..., None]
        lever = self._moves @ by_bone - self._turned_weights[..., None] * joints[:, None]
        by_turn = -(cross_matrix(lever) @ rotations[:, None]).swapaxes(2, 3).reshape(count, -1, 3, 3 * _JOINTS)
        blended = (self._weights @ rotations.reshape(count, _JOINTS, 9)).reshape(count, -1, 3, 3)
        by_turn[..., 3:] += blended @ self._rest_by_turn(rotmats)
        moved = self._weights @ offsets_by_shape[..., 1:].reshape(count, _JOINTS, -1)
        by_beta = blended @ self._shaped[..., 1:] + moved.reshape(count, -1, 3, NUM_BETAS)
        return by_bone.sum(2), np.concatenate([by_turn, by_beta], -1)

    def _rest_by_turn(self, rotmats: np.ndarray) -> np.ndarray:
        """Derivative of the rest points, by the turns of joints 1 to 23: the pose blend shapes, (P, K, 3, 69)."""
        count = len(rotmats)
        by_joint = rotmats[:, 1:].reshape(count, _JOINTS - 1, 9).swapaxes(0, 1) @ self._turned_posedirs
        by_joint = by_joint.reshape(_JOINTS - 1, count, -1, 3, 3)  # (j, P, K, 3, c)
        return by_joint.transpose(1, 2, 3, 0, 4).reshape(count, -1, 3, 3 * (_JOINTS - 1))


def _descendants(parents: tuple[int, ...]) -> np.ndarray:
    """(24, 24), 1 where the second joint is the first or below it."""
    below = np.eye(len(parents))
    for child, parent in enumerate(parents[1:], 1):
        below[:, child] += below[:, parent]
    return below
