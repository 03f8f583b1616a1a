"""Build the table of real poses from motion files that can be had freely, retargeted to SMPL's joints.

    python scripts/build_poses.py MOTION_DIR [--output_dir model_zoo/poses]

MOTION_DIR holds a folder per source, as its public repository has it (sub-folders as they are, or joined to the file's
name by '_'); `model_zoo/poses/LICENSE.md` says under which terms:

    acrnn/       BVH  papagina/Auto_Conditioned_RNN_motion, train_data_bvh/{salsa,indian,martial}
    iclone/      BVH  DragonForgedTheArtist/IClone-CMU-Mocap, All_BVH/subjects
    convseq/     text chaneyddtt/Convolutional-Sequence-to-Sequence-Model-for-Human-Dynamics, data/cmu_mocap
    jump/        text arpspoof/Jump, data/vae/txt/cmu*
    quaternius/  GLB  Mesh2Motion/mesh2motion-app, static/animations/human-base-animations.glb
    makehuman/   BVH  makehumancommunity/makehuman-assets, base/poses

Writes cmu.npz and free.npz with the keys `pose` (N, 24, 3) float16, axis-angle in rad relative to the parent, the
root's to an upright body that faces +z with y up; `clip` (N,), source and file; `subject` (N,), CMU's subject or, where
files name none, the action; `test` (N,) bool, never to be trained on. No two poses of a table's part, test or not, are
closer than THINNING on average over the joints. It takes a minute.
"""

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from poses import rigs
from poses.bvh import read_bvh
from poses.gltf import read_gltf
from poses.motion import Motion
from poses.retarget import Rig, furthest_off, retarget
from poses.text import read_exponential_maps, read_humanoid
from scipy.spatial.transform import Rotation

from cliff_ms import cli
from cliff_ms.body.files import load_body
from cliff_ms.body.skinning import global_rotations
from cliff_ms.io.errors import InputError
from cliff_ms.io.files import atomic_path, prepare_output_dir
from cliff_ms.keypoints import SMPL24

THINNING = 0.04  # m
TEST = {"1", "2", "5", "10", "11", "49", "85", "127", "soccer", "washwindow", "indian"}  # subjects and actions
_COMPARED = [
    SMPL24.index(joint)
    for joint in ("neck", "head", *(f"{side}_{part}" for side in ("left", "right")
                                    for part in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")))
]  # fmt: skip


@dataclass(frozen=True)
class Source:
    """Files of one repository.

    Attributes:
        folder: In MOTION_DIR.
        file: Pattern of the path below it with '_' for '/', with a group `subject` and perhaps one `clip`.
        rig: Of the skeleton.
        free: Whether it is CC0; else CMU's.
    """

    folder: str
    file: str
    rig: Rig
    free: bool = False

    def motions(self, root: Path) -> Iterator[tuple[str, str, Motion]]:
        """Read every file: clip, subject and motion without its unsteady frames, in a fixed order."""
        for clip, subject, motion in self.recordings(root):
            yield clip, subject, motion.steady(self.rig.bones.values())

    def recordings(self, root: Path) -> Iterator[tuple[str, str, Motion]]:
        """The same with all frames."""
        found = False
        for path in sorted((root / self.folder).rglob("*")):
            match = re.search(self.file, "_".join(path.relative_to(root).parts))
            if not match:
                continue
            found = True
            subject = match["subject"].lstrip("0") if "subject" in match.groupdict() else self.folder
            name = match.groupdict().get("clip", "")
            for part, motion in self._read(path):
                yield f"{self.folder}/{name or part}", subject, motion
        if not found:
            raise InputError(
                f"MOTION_DIR '{root}' has no motion in '{self.folder}'; see --help for what belongs there."
            )

    def _read(self, path: Path) -> Iterator[tuple[str, Motion]]:
        if path.suffix == ".glb":
            yield from read_gltf(path, "T-Pose")
        elif path.suffix == ".bvh":
            motion = read_bvh(path)
            yield "", motion.turned(rigs.MAKEHUMAN_AXES) if self.rig is rigs.MAKEHUMAN else motion
        else:
            yield "", read_humanoid(path) if self.rig is rigs.HUMANOID else read_exponential_maps(path)


SOURCES = (
    Source("acrnn", r"(?P<clip>(?P<subject>salsa|indian|martial)_\d+)\.bvh$", rigs.DAZ),
    Source("iclone", r"_(?P<clip>(?P<subject>\d{3})_\d\d)\.bvh$", rigs.REALLUSION),
    Source(
        "convseq", r"_(?P<clip>(?:test|train)_(?P<subject>[a-z_]+?)(?:_extra)?_(?P=subject)_\d+)\.txt$", rigs.BENCHMARK
    ),
    # Not its humanoid3d_* files: those are DeepMimic's, some of them for research only.
    Source("jump", r"_(?P<clip>(?P<subject>\d+)_\d\d)\.txt$", rigs.HUMANOID),
    Source("quaternius", r"\.glb$", rigs.RIGIFY, free=True),
    Source("makehuman", r"_(?P<clip>[a-z]+\d\d)\.bvh$", rigs.MAKEHUMAN, free=True),
)


def main() -> None:
    """Retarget all files, thin the poses out, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("motion_dir", type=Path, metavar="MOTION_DIR", help="folder with a folder per source")
    parser.add_argument("--output_dir", type=Path, default=Path("model_zoo/poses"), help="for the two tables")
    args = parser.parse_args()
    output_dir = prepare_output_dir(args.output_dir)
    body = load_body()
    joints = body.joint_regressor @ body.v_template
    for name, free in (("cmu", False), ("free", True)):
        poses, clips, subjects = [], [], []
        for source in (source for source in SOURCES if source.free == free):
            off, before = 0.0, sum(map(len, poses))
            for clip, subject, motion in source.motions(args.motion_dir):
                poses.append(retarget(motion, source.rig, joints, body.parents))
                off = max(off, furthest_off(motion, source.rig, poses[-1], joints, body.parents))
                clips += [clip] * len(poses[-1])
                subjects += [subject] * len(poses[-1])
            print(f"{source.folder}: {sum(map(len, poses)) - before} poses, limbs at most {off:.2f} degrees off")
        rotmats, subject = np.concatenate(poses), np.array(subjects)
        test = np.isin(subject, list(TEST))
        places = joint_places(rotmats, joints, body.parents)
        kept = np.sort(np.concatenate([part[thin(places[part])] for part in map(np.flatnonzero, (~test, test))]))
        pose = Rotation.from_matrix(rotmats[kept].reshape(-1, 3, 3)).as_rotvec().reshape(-1, 24, 3)
        path = output_dir / f"{name}.npz"
        columns = {"clip": np.array(clips)[kept], "subject": subject[kept], "test": test[kept]}
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, pose=pose.astype(np.float16), **columns)
        print(f"wrote {path}: {len(kept)} poses, {test[kept].sum()} for tests, {path.stat().st_size / 1e6:.2f} MB")


def joint_places(rotmats: np.ndarray, joints: np.ndarray, parents: tuple[int, ...]) -> np.ndarray:
    """Places (N, 14, 3) m, from the pelvis, of the joints that poses (N, 24, 3, 3) are compared by."""
    turned = global_rotations(rotmats, parents)
    places = np.zeros((len(rotmats), 24, 3))
    for joint, parent in enumerate(parents[1:], 1):
        places[:, joint] = places[:, parent] + turned[:, parent] @ (joints[joint] - joints[parent])
    return places[:, _COMPARED].astype(np.float32)


def thin(places: np.ndarray) -> np.ndarray:
    """Choose poses greedily in random order so that no two are closer than THINNING, (N, 14, 3) m -> rows (M,)."""
    kept, rows = np.empty_like(places), []
    for row in np.random.default_rng(0).permutation(len(places)):
        near = kept[: len(rows)] - places[row]
        distance = np.sqrt(np.einsum("njk,njk->nj", near, near)).mean(1)
        if not (distance < THINNING).any():
            kept[len(rows)] = places[row]
            rows.append(row)
    return np.array(rows, int)


if __name__ == "__main__":
    cli.run(main)
