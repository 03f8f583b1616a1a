"""SMPL: pose and shape parameters to a mesh (Loper et al., SIGGRAPH Asia 2015; section 3.1 of CLIFF)."""

import dataclasses

import numpy as np

from mindspore import Tensor, nn, ops

from cliff_ms.body.files import Body
from cliff_ms.io.errors import InputError
from cliff_ms.keypoints import SMPL45
from cliff_ms.rotation import axis_angle_to_rotmat

_BETAS = 10  # shape components used


class SMPL(nn.Cell):
    r"""The SMPL function :math:`(\theta, \beta) \to` vertices and joints, for any body file in SMPL format.

    The arrays of the body are constants, not parameters: they enter no checkpoint. Vertices are handled as three
    (B, V) coordinate planes, which turns every step into plain 2-D matrix products.

    Args:
        body (Body): What :func:`cliff_ms.load_body` returns.
        joint_regressor (numpy.ndarray): Optional (K, V) matrix; its joints follow the first 45. Default: None.

    Inputs:
        - **betas** (Tensor) - Shape coefficients, (B, 10), float32.
        - **pose** (Tensor) - Rotations relative to the parent joint, the root's relative to the camera: matrices
          (B, 24, 3, 3), or axis-angle (B, 72) or (B, 24, 3) in rad.

    Outputs:
        Tuple of

        - **vertices** (Tensor) - (B, V, 3) m, model frame; the translation to the camera is not added.
        - **joints** (Tensor) - (B, 45 + K, 3) m: the 24 of the kinematic tree, 21 vertices of the surface in smplx's
          order (nose, eyes, ears, feet, finger tips), then those of `joint_regressor`.

    Raises:
        ValueError: If a shape does not fit.

    Supported Platforms:
        ``CPU``

    Examples:
        >>> from mindspore import ops
        >>> from cliff_ms import SMPL, load_body
        >>> smpl = SMPL(load_body())
        >>> vertices, joints = smpl(ops.zeros((1, 10)), ops.zeros((1, 72)))
        >>> joints.shape
        (1, 45, 3)
    """

    def __init__(self, body: Body, joint_regressor: np.ndarray | None = None) -> None:
        super().__init__()
        if body.shapedirs.shape[2] < _BETAS:
            raise ValueError(f"For 'SMPL', the body must have {_BETAS} betas, but has {body.shapedirs.shape[2]}.")
        self.vertex_count = body.vertex_count

        shapedirs = body.shapedirs[:, :, :_BETAS].astype(np.float64)  # (V, 3, N)
        regressor = body.joint_regressor.astype(np.float64)  # (24, V)
        # Joints are linear in the rest vertices, and those in beta: J(beta) needs no mesh.
        self.joint_template = _constant(regressor @ body.v_template)  # (24, 3)
        self.joint_shapedirs = _constant(np.einsum("jv,vkn->njk", regressor, shapedirs).reshape(_BETAS, -1))
        # Template, shape and pose blend shapes of one coordinate as one (1 + N + 207, V) matrix.
        blend = [np.c_[body.v_template[:, k], shapedirs[:, k], body.posedirs[:, k]].T for k in range(3)]
        self.blend_x, self.blend_y, self.blend_z = (_constant(b) for b in blend)
        self.skinning = _constant(body.weights.T)  # (24, V)
        self.levels = _levels(body.parents)
        self.extra_vertex_ids = Tensor(body.extra_vertex_ids)
        self.identity = _constant(np.eye(3))
        self.joint_count = len(SMPL45)
        self.joint_regressor = None
        if joint_regressor is not None:
            if joint_regressor.shape[1:] != (self.vertex_count,):
                raise ValueError(
                    f"For 'SMPL', 'joint_regressor' must have shape (K, {self.vertex_count}), "
                    f"but got {joint_regressor.shape}."
                )
            self.joint_regressor = _constant(joint_regressor.T)  # (V, K)
            self.joint_count = self.joint_count + len(joint_regressor)

    def construct(self, betas: Tensor, pose: Tensor) -> tuple[Tensor, Tensor]:
        if betas.ndim != 2 or betas.shape[1] != _BETAS:
            raise ValueError(f"For 'SMPL', 'betas' must have shape (B, {_BETAS}), but got {betas.shape}.")
        rotmats = pose if pose.ndim == 4 else axis_angle_to_rotmat(pose.reshape(pose.shape[0], -1, 3))
        if rotmats.shape[1:] != (24, 3, 3):
            raise ValueError(
                f"For 'SMPL', 'pose' must have shape (B, 24, 3, 3), (B, 24, 3) or (B, 72), but got {pose.shape}."
            )
        rest_joints = self.shape_joints(betas)
        rest_planes = self.blend_shapes(betas, rotmats)
        world_rotations, joints = self.forward_kinematics(rotmats, rest_joints)
        planes = self.skin(rest_planes, rest_joints, world_rotations, joints)  # (B, 3, V)
        return planes.swapaxes(1, 2), self.collect_joints(planes, joints)

    def shape_joints(self, betas: Tensor) -> Tensor:
        """J(beta), Eq. (10) of SMPL: joints (B, 24, 3) of the shaped body at rest."""
        return self.joint_template + ops.matmul(betas, self.joint_shapedirs).reshape(-1, 24, 3)

    def blend_shapes(self, betas: Tensor, rotmats: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """T + B_S(beta) + B_P(theta), Eq. (6): the corrected body at rest, as x, y and z planes of (B, V)."""
        batch = betas.shape[0]
        pose_feature = (rotmats[:, 1:] - self.identity).reshape(batch, -1)  # (B, 207)
        feature = ops.cat((ops.ones_like(betas[:, :1]), betas, pose_feature), 1)
        return (
            ops.matmul(feature, self.blend_x),
            ops.matmul(feature, self.blend_y),
            ops.matmul(feature, self.blend_z),
        )

    def forward_kinematics(self, rotmats: Tensor, rest_joints: Tensor) -> tuple[Tensor, Tensor]:
        """Eq. (4): rotations (B, 24, 3, 3) and joints (B, 24, 3) in the model frame, down the tree level by level."""
        rotation, joint = rotmats[:, :1], rest_joints[:, :1]  # of the level above
        rest = joint
        rotations, joints = (rotation,), (joint,)  # tuples: lists cannot be exported to ONNX
        for start, stop, parents in self.levels:
            parent_rotation = ops.gather(rotation, parents, 1)  # (B, k, 3, 3)
            bone = rest_joints[:, start:stop] - ops.gather(rest, parents, 1)  # (B, k, 3)
            joint = ops.gather(joint, parents, 1) + ops.matmul(parent_rotation, bone.expand_dims(-1)).squeeze(-1)
            rotation = ops.matmul(parent_rotation, rotmats[:, start:stop])
            rest = rest_joints[:, start:stop]
            rotations = rotations + (rotation,)
            joints = joints + (joint,)
        return ops.cat(rotations, 1), ops.cat(joints, 1)

    def skin(
        self, planes: tuple[Tensor, Tensor, Tensor], rest_joints: Tensor, rotations: Tensor, joints: Tensor
    ) -> Tensor:
        """Linear blend skinning, Eq. (2) and (3): posed vertices as (B, 3, V)."""
        # G' takes a rest vertex to its place: v -> R (v - j_rest) + j_posed.
        offsets = joints - ops.matmul(rotations, rest_joints.expand_dims(-1)).squeeze(-1)  # (B, 24, 3)
        x, y, z = planes
        posed = ()
        for row in range(3):
            plane = (
                ops.matmul(rotations[:, :, row, 0], self.skinning) * x
                + ops.matmul(rotations[:, :, row, 1], self.skinning) * y
                + ops.matmul(rotations[:, :, row, 2], self.skinning) * z
                + ops.matmul(offsets[:, :, row], self.skinning)
            )
            posed = posed + (plane,)
        return ops.stack(posed, 1)

    def collect_joints(self, planes: Tensor, joints: Tensor) -> Tensor:
        """The 24 joints of the tree, the 21 of the surface, and those of the regressor: J = M V of section 3.1."""
        surface = ops.gather(planes, self.extra_vertex_ids, 2).swapaxes(1, 2)
        if self.joint_regressor is None:
            return ops.cat((joints, surface), 1)
        regressed = ops.matmul(planes.reshape(-1, self.vertex_count), self.joint_regressor)
        return ops.cat((joints, surface, regressed.reshape(planes.shape[0], 3, -1).swapaxes(1, 2)), 1)


def _constant(array: np.ndarray) -> Tensor:
    return Tensor(np.ascontiguousarray(array, np.float32))


def _levels(parents: tuple[int, ...]) -> list[tuple[int, int, Tensor]]:
    """The tree by depth: (first joint, past the last, each one's parent counted within the level above)."""
    depth = [0] * len(parents)
    for joint, parent in enumerate(parents[1:], 1):
        depth[joint] = depth[parent] + 1
    if parents[0] != -1 or depth != sorted(depth):
        raise ValueError("For 'SMPL', joints must be numbered by their depth in the tree, the root first.")
    levels, above = [], 0
    for level in range(1, depth[-1] + 1):
        start, stop = depth.index(level), len(depth) - depth[::-1].index(level)
        levels.append((start, stop, Tensor(np.array([p - above for p in parents[start:stop]], np.int32))))
        above = start
    return levels


def build_smpl(body: Body, where: str, with_vertices: bool = False) -> SMPL:
    """SMPL with the joints that annotations label.

    Args:
        body: The body model.
        where: Its file, for the message.
        with_vertices: Keep all vertices. Else only those that some joint depends on, a few hundred, which makes no
            difference to the joints and is many times faster.

    Returns:
        The cell; its joints are `keypoints.LANDMARKS`.

    Raises:
        InputError: If the body has no regressor 'extra'.
    """
    if "extra" not in body.regressors:
        raise InputError(
            f"{where} has no 'J_regressor_extra', which gives the joints that annotations label: put SPIN's "
            "J_regressor_extra.npy (in its data archive, https://github.com/nkolot/SPIN) beside the body file."
        )
    if not with_vertices:
        body = _without_idle_vertices(body)
    return SMPL(body, joint_regressor=body.regressors["extra"])


def _without_idle_vertices(body: Body) -> Body:
    regressor = body.regressors["extra"]
    needed = (regressor != 0).any(0) | (body.joint_regressor != 0).any(0)
    needed[body.extra_vertex_ids] = True
    return dataclasses.replace(
        body,
        v_template=body.v_template[needed],
        shapedirs=body.shapedirs[needed],
        posedirs=body.posedirs[needed],
        weights=body.weights[needed],
        joint_regressor=body.joint_regressor[:, needed],
        extra_vertex_ids=(np.cumsum(needed) - 1)[body.extra_vertex_ids].astype(np.int32),
        regressors={"extra": regressor[:, needed]},
        faces=body.faces[:0],
    )
