"""What the fit over time is worth: recorded motion, filmed by cameras that stand or pan, seen with a detector's errors.

    python scripts/motion_study.py MOTION_DIR

MOTION_DIR is that of scripts/build_poses.py. From up to 24 files of subjects and actions that nothing is trained on,
five seconds each, 30 frames a second: a body of random shape before a camera, its COCO joints with the errors of the
stream's imitation of the bundled detector, half of their variance from frame to frame, the other half drifting over
half a second, and what the bundled model makes of them. Compared are the predictions, the fit of single frames, both
smoothed by common filters, and the fit over time. The filters' settings are the best in MPJPE on motion of other
subjects (--tune prints them), where those of `inference/fit_track.py` were chosen too.

MPJPE and PA-MPJPE of SMPL's 24 joints, from the pelvis; acceleration: the mean distance of second differences, from the
pelvis (HMMR, VIBE) and in the camera's frame, mm/frame^2; sliding: of feet that stand, mm/frame; place: of the pelvis;
fast: of wrists and ankles that move at more than 3 m/s from the pelvis, the error of their velocity, and how much of it
is kept along its true direction.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from build_poses import SOURCES, TEST
from poses.motion import Motion
from poses.retarget import Rig, retarget
from scipy.ndimage import gaussian_filter1d
from scipy.signal import savgol_filter
from scipy.spatial.transform import Rotation

from cliff_ms import cli, runtime
from cliff_ms.body.errors import SMPLParameters
from cliff_ms.body.files import Body, load_body
from cliff_ms.body.kinematics import Kinematics
from cliff_ms.body.skinning import Skinner
from cliff_ms.data.batching import filled_batches
from cliff_ms.data.crop import normalize_keypoints
from cliff_ms.inference.fit import Fit, View
from cliff_ms.inference.fit_track import TrackFit
from cliff_ms.keypoints import SMPL24, convert_keypoints
from cliff_ms.metrics import acceleration_error, mpjpe, pa_mpjpe
from cliff_ms.synthetic.observation import Observer, crops_around
from cliff_ms.synthetic.world import SeenPeople, World, sample_betas
from cliff_ms.visual.gltf import four_influences
from cliff_ms.weights.checkpoint import load_weights
from cliff_ms.weights.engine import load_network
from cliff_ms.zoo import bundled_model

FPS, FRAMES, CLIPS = 30, 150, 24
FOLDERS = ("iclone", "jump", "acrnn")  # whose files say where the person goes
FOCAL, IMG_HW = 1100.0, (720, 1280)
PAN = np.radians(6)  # a second, of every other camera
DRIFT = 15  # frames
STANDS = 0.004  # m a frame
FAST = 3.0  # m/s
_FEET = [SMPL24.index(f"{side}_{part}") for side in ("left", "right") for part in ("ankle", "foot")]
_ENDS = [SMPL24.index(f"{side}_{part}") for side in ("left", "right") for part in ("wrist", "ankle")]
_LEG = ("left_hip", "left_knee", "left_ankle")


@dataclass(frozen=True)
class Clip:
    """One person through T frames.

    Attributes:
        people: The truth.
        joints: (T, 24, 3) m, camera.
        to_world: (T, 3, 3), from the camera's frame to one that does not turn.
        view: What the detector says.
        predicted: What the network makes of it.
    """

    people: SeenPeople
    joints: np.ndarray
    to_world: np.ndarray
    view: View
    predicted: SMPLParameters


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("motion_dir", type=Path, metavar="MOTION_DIR", help="see scripts/build_poses.py")
    parser.add_argument("--tune", action="store_true", help="motion of the subjects that are trained on, all settings")
    args = parser.parse_args()
    runtime.setup_device("CPU")
    body = load_body()
    weights = load_weights(bundled_model())
    fit = Fit(body, "coco17", weights.meaning.expected_deviations(), as_detected=True)
    over_time = TrackFit(fit, body)
    clips = list(filmed(args.motion_dir, body, test=not args.tune))
    times = np.arange(FRAMES) / FPS
    ways: dict[str, list[SMPLParameters]] = {"predicted": [clip.predicted for clip in clips]}
    fitted = [fit(*clip.predicted, *clip.view) for clip in clips]
    ways["each frame fitted"] = [each.bodies for each in fitted]
    for name, smooth in filters(args.tune):
        ways[f"predicted, {name}"] = [filtered(clip.predicted, smooth) for clip in clips]
        ways[f"fitted, {name}"] = [filtered(each.bodies, smooth) for each in fitted]
    seen = np.ones(FRAMES, bool)
    ways["fitted over time"] = [
        over_time(clip.predicted, *each, clip.view, times, seen) for clip, each in zip(clips, fitted, strict=True)
    ]
    kinematics = Kinematics(body, SMPL24)
    rows = []
    for name, bodies in ways.items():
        scores = [score(each, clip, kinematics) for each, clip in zip(bodies, clips, strict=True)]
        rows.append({"bodies": name, **{key: float(np.nanmean([s[key] for s in scores])) for key in scores[0]}})
    print(f"{len(clips)} clips\n{cli.table(rows)}")
    off = 1000 * np.concatenate([skin_of_gltf(clip.people, body) for clip in clips])
    print(
        f"skin of the glTF: {off.mean():.1f} mm from the body's on average, 99 % within {np.quantile(off, 0.99):.0f} mm"
    )


def skin_of_gltf(people: SeenPeople, body: Body) -> np.ndarray:
    """How far off it is for want of pose blend shapes and of more than four joints a vertex, (T / 10, V) m."""
    rotmats, betas = people.rotmats[::10], people.betas[::10]
    skinner = Skinner(body, whole=True)
    exact, _, rotations = skinner(betas, rotmats)
    rest, joints = skinner.rest_joints(betas), Kinematics(body, SMPL24)(rotmats.astype(float), betas.astype(float))[0]
    weights = np.zeros_like(body.weights)
    followed, shares = four_influences(body.weights)
    np.add.at(weights, (np.arange(len(weights))[:, None], followed), shares)
    shaped = body.v_template + np.einsum("vkn,tn->tvk", body.shapedirs[..., :10], betas)
    by_joint = np.einsum("tjab,tvjb->tvja", rotations, shaped[:, :, None] - rest[:, None]) + joints[:, None]
    return np.linalg.norm((by_joint * weights[..., None]).sum(2) - exact, axis=-1)


def filmed(root: Path, body: Body, test: bool) -> Iterator[Clip]:
    """The clips of the subjects of one part."""
    world, kinematics = World(body, real=0), Kinematics(body, SMPL24)
    joints = body.joint_regressor @ body.v_template
    weights = load_weights(bundled_model())
    network, batch_size = load_network(weights, "auto", 50)
    motions = [
        (source.rig, motion)
        for source in SOURCES
        if source.folder in FOLDERS
        for _, subject, motion in source.recordings(root)
        if (subject in TEST) == test and len(motion.rotations) >= FRAMES
    ]
    chosen = np.linspace(0, len(motions) - 1, min(CLIPS, len(motions))).round().astype(int)
    for number, which in enumerate(chosen):
        rng = np.random.default_rng((5, number))
        rig, motion = motions[which]
        first = (len(motion.rotations) - FRAMES) // 2
        rotmats, place = in_world(motion.frames(np.arange(first, first + FRAMES)), rig, joints, body.parents)
        people, to_world = film(rng, world, rotmats, place, pans=number % 2 == 1)
        keypoints = observe(rng, people)
        center, size = crops_around(keypoints)
        inputs = convert_keypoints(keypoints, "coco17", weights.meaning.model.joint_set)
        inputs = normalize_keypoints(inputs, center, size)
        arrays = [np.asarray(a, np.float32) for a in (inputs, center, size, people.img_hw, people.focal_length)]
        parts = []
        for rows, kept in filled_batches(FRAMES, batch_size):
            rotations, betas, _, translation = network(*(array[rows] for array in arrays))
            parts.append([array[:kept] for array in (rotations, betas, translation)])
        predicted = SMPLParameters(*(np.concatenate(part) for part in zip(*parts, strict=True)))
        points = kinematics(people.rotmats.astype(np.float64), people.betas.astype(np.float64))[0]
        view = View(keypoints, size, people.img_hw, people.focal_length)
        yield Clip(people, points + people.translation[:, None], to_world, view, predicted)


def in_world(motion: Motion, rig: Rig, joints: np.ndarray, parents: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Rotations (T, 24, 3, 3), the root's to a world with y up, and the pelvis (T, 3) m there."""
    rotmats = retarget(motion, rig, joints, parents)
    pelvis = motion.bones.index(rig.bones["pelvis"])
    rest = rig.rest.get(rig.bones["pelvis"], motion.rest[pelvis])
    ahead = rotmats[:, 0] @ (motion.rotations[:, pelvis] @ rest.T).transpose(0, 2, 1)  # takes the heading away
    rotmats[:, 0] = ahead.transpose(0, 2, 1) @ rotmats[:, 0]
    theirs = [motion.positions[0, motion.bones.index(rig.bones[name])] for name in _LEG]
    ours = [joints[SMPL24.index(name)] for name in _LEG]
    lengths = [sum(np.linalg.norm(b - a) for a, b in zip(leg, leg[1:], strict=False)) for leg in (ours, theirs)]
    return rotmats, motion.positions[:, pelvis] * lengths[0] / lengths[1]


def film(
    rng: np.random.Generator, world: World, rotmats: np.ndarray, place: np.ndarray, pans: bool
) -> tuple[SeenPeople, np.ndarray]:
    """Put a camera where all of the way is in view."""
    count = len(place)
    yaw = rng.uniform(-np.pi, np.pi)
    to_level = np.diag([1.0, -1.0, -1.0]) @ Rotation.from_rotvec([0, yaw, 0]).as_matrix()
    way = (place - (place.min(0) + place.max(0)) / 2) @ to_level.T
    distance = rng.uniform(3.0, 5.0) + np.abs(way[:, 2]).max() + 1.5 * np.abs(way[:, 0]).max()
    turn = (PAN * (np.arange(count) - count / 2) / FPS if pans else np.zeros(count)) * rng.choice((-1, 1))
    panned = Rotation.from_rotvec(turn[:, None] * (0, 1, 0)).as_matrix()
    place = (panned @ (way + (0, rng.uniform(0, 0.4), distance))[..., None])[..., 0]
    rotmats = rotmats.copy()
    rotmats[:, 0] = panned @ to_level @ rotmats[:, 0]
    bodies = world.pose(rotmats, np.repeat(sample_betas(rng, 1), count, 0), np.zeros(count, bool))
    eyes = np.broadcast_to(np.eye(3), (count, 3, 3))
    img_hw = np.tile(np.array(IMG_HW, np.float64), (count, 1))
    return bodies.seen(eyes, place, np.full(count, FOCAL), img_hw), panned.transpose(0, 2, 1)


def observe(rng: np.random.Generator, people: SeenPeople) -> np.ndarray:
    """Keypoints (T, 17, 3) of a detector whose errors drift and jump in equal parts."""
    observer = Observer("coco17", "bundled")
    first, second = observer(rng, people)[0], observer(rng, people)[0]
    exact = Observer("coco17", "clean")(rng, people)[0]
    errors, slow = (np.where(k[..., 2:] > 0, k[..., :2] - exact[..., :2], 0) for k in (first, second))
    frames = np.arange(len(slow))
    knots = np.unique(np.r_[frames[::DRIFT], frames[-1]])
    left = np.searchsorted(knots, frames, "right").clip(1, len(knots) - 1)
    share = ((frames - knots[left - 1]) / (knots[left] - knots[left - 1]))[:, None, None]
    # Between two independent errors the variance would be less: it is kept.
    drift = ((1 - share) * slow[knots[left - 1]] + share * slow[knots[left]]) / np.sqrt((1 - share) ** 2 + share**2)
    seen = first[..., 2:]
    return np.concatenate([(exact[..., :2] + np.sqrt(0.5) * (errors + drift)) * (seen > 0), seen], -1).astype(
        np.float32
    )


def filters(everything: bool) -> Iterator[tuple[str, Callable[[np.ndarray], np.ndarray]]]:
    """Names and filters of (T, C) over T; with all settings, or the best ones."""
    for sigma in (1.0, 2.0, 3.0, 4.0) if everything else (2.0,):
        yield f"Gaussian, {sigma:g} frames", lambda x, s=sigma: gaussian_filter1d(x, s, axis=0, mode="nearest")
    for window in (7, 11, 15, 21, 27) if everything else (15,):
        yield f"Savitzky-Golay, {window} frames", lambda x, w=window: savgol_filter(x, w, 2, axis=0)
    for cutoff, beta in ((0.5, 0.1), (1.0, 0.1), (1.0, 1.0), (2.0, 1.0), (4.0, 1.0)) if everything else ((2.0, 1.0),):
        yield f"One-Euro, {cutoff:g} Hz, {beta:g}", lambda x, c=cutoff, b=beta: one_euro(x, c, b)


def filtered(bodies: SMPLParameters, smooth: Callable[[np.ndarray], np.ndarray]) -> SMPLParameters:
    """Filter rotations as matrices, which are made rotations again, shapes and places."""
    count = len(bodies.betas)
    left, _, right = np.linalg.svd(smooth(bodies.rotmats.reshape(count, -1).astype(np.float64)).reshape(-1, 3, 3))
    left[..., 2] *= np.linalg.det(left @ right)[:, None]
    rotmats = (left @ right).reshape(count, 24, 3, 3)
    return SMPLParameters(
        rotmats, smooth(bodies.betas.astype(np.float64)), smooth(bodies.translation.astype(np.float64))
    )


def one_euro(values: np.ndarray, cutoff: float, beta: float) -> np.ndarray:
    """Casiez et al., CHI 2012: a low pass that opens with speed."""
    result, slope = values.copy(), np.zeros_like(values[0])
    smoothing = lambda hertz: 1 / (1 + FPS / (2 * np.pi * hertz))  # noqa: E731
    for k in range(1, len(values)):
        slope = slope + smoothing(1.0) * ((values[k] - result[k - 1]) * FPS - slope)
        result[k] = result[k - 1] + smoothing(cutoff + beta * np.abs(slope)) * (values[k] - result[k - 1])
    return result


def score(bodies: SMPLParameters, clip: Clip, kinematics: Kinematics) -> dict[str, float]:
    """The columns of the table."""
    rotmats, betas, translation = (array.astype(np.float64) for array in bodies)
    joints = kinematics(rotmats, betas)[0] + translation[:, None]
    rooted, true_rooted = (points - points[:, :1] for points in (joints, clip.joints))
    world, true_world = ((points[:, _FEET] @ clip.to_world.swapaxes(1, 2)) for points in (joints, clip.joints))
    stands = np.linalg.norm(np.diff(true_world, axis=0), axis=-1) < STANDS
    slides = np.linalg.norm(np.diff(world, axis=0), axis=-1)[stands]
    velocity, true_velocity = (FPS * np.diff(points[:, _ENDS], axis=0) for points in (rooted, true_rooted))
    speed = np.linalg.norm(true_velocity, axis=-1)
    fast = speed > FAST
    kept = (velocity * true_velocity).sum(-1)[fast] / speed[fast] ** 2
    return {
        "MPJPE (mm)": mpjpe(rooted, true_rooted).mean(),
        "PA-MPJPE (mm)": pa_mpjpe(rooted, true_rooted).mean(),
        "acceleration": acceleration_error(rooted, true_rooted).mean(),
        "in the camera": acceleration_error(joints, clip.joints).mean(),
        "sliding": 1000 * _mean(slides),
        "place (mm)": 1000 * np.linalg.norm(joints[:, 0] - clip.joints[:, 0], axis=1).mean(),
        "fast (m/s)": _mean(np.linalg.norm(velocity - true_velocity, axis=-1)[fast]),
        "kept": _mean(kept),
    }


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan


if __name__ == "__main__":
    cli.run(main)
