"""SMPL in float64, written from the paper; nothing of the package computes here."""

import numpy as np

from cliff_ms.keypoints import LSP_EXTRA9, SMPL45, SPIN24


def reference_smpl(body, betas, rotmats):
    """Betas (..., N), rotmats (..., 24, 3, 3) -> vertices (..., V, 3) and 45 joints (..., 45, 3), in m."""
    basis = body.shapedirs[..., : betas.shape[-1]].astype(float)
    shaped = body.v_template + np.tensordot(betas, basis, (-1, -1))
    rest_joints = body.joint_regressor.astype(float) @ shaped
    pose_feature = (rotmats[..., 1:, :, :] - np.eye(3)).reshape(*betas.shape[:-1], -1)
    rest = shaped + np.tensordot(pose_feature, body.posedirs.astype(float), (-1, -1))
    rotation, place = [rotmats[..., 0, :, :]], [rest_joints[..., 0, :]]
    for joint, parent in enumerate(body.parents[1:], 1):
        bone = rest_joints[..., joint, :] - rest_joints[..., parent, :]
        place.append(place[parent] + np.einsum("...xy,...y->...x", rotation[parent], bone))
        rotation.append(rotation[parent] @ rotmats[..., joint, :, :])
    rotation, place = np.stack(rotation, -3), np.stack(place, -2)
    weights = body.weights.astype(float)
    shift = place - np.einsum("...jxy,...jy->...jx", rotation, rest_joints)
    blended = (weights @ rotation.reshape(*place.shape[:-1], 9)).reshape(*rest.shape, 3)
    vertices = (blended @ rest[..., None])[..., 0] + weights @ shift
    return vertices, np.concatenate([place, vertices[..., body.extra_vertex_ids, :]], -2)


def reference_joints(body, betas, rotmats, names=SPIN24):
    """Vertices as above, and the joints of these names (..., J, 3), the nine of SPIN's regressor among them."""
    vertices, joints = reference_smpl(body, betas, rotmats)
    every = np.concatenate([joints, body.regressors["extra"].astype(float) @ vertices], -2)
    return vertices, every[..., [(SMPL45 + LSP_EXTRA9).index(name) for name in names], :]
