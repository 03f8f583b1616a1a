"""How wide the fit's prior should be for networks whose errors nobody has measured, on perturbations of the truth.

    python scripts/fit_study.py [--people 400]

People of the synthetic stream, and as the predictions of a network that reads pixels their true bodies, turned, moved
and given another shape at random, until they are off by what such networks are off by: 80 to 100 mm on 3DPW, more on
other photos. Each row is one such network and one kind of keypoints, each column a prior: the table of `body.errors`
times a factor. One core, a minute.
"""

import argparse

import numpy as np
from scipy.spatial.transform import Rotation

from cliff_ms import cli
from cliff_ms.body.errors import SMPLParameters, expected_deviations
from cliff_ms.body.files import load_body
from cliff_ms.body.kinematics import Kinematics
from cliff_ms.inference.fit import Fit
from cliff_ms.keypoints import SMPL24
from cliff_ms.synthetic.observation import Observer
from cliff_ms.synthetic.world import SeenPeople, World

OFF_BY = (80, 100, 140)  # mm
OBSERVATIONS = ("clean", "detector", "bundled")
FACTORS = (0.5, 1.0, 1.5, 2.0, 3.0)
_SPREAD = 0.5  # over people, of the logarithm of how far they are off
_SHAPE_KNOWN = 0.2  # networks say little more than the mean shape


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--people", type=int, default=400, help="in each row")
    return parser.parse_args()


def perturbed(people: SeenPeople, size: np.ndarray, scale: float) -> SMPLParameters:
    """Bodies that are off by the table's deviations times a scale, alike about all axes of a joint.

    Args:
        people: P people.
        size: (P,) px, height of the crop.
        scale: 1 for errors as large as the bundled keypoint model's.

    Returns:
        Float32.
    """
    rng, count = np.random.default_rng(1), len(size)
    deviations = scale * expected_deviations()
    turns = np.repeat(np.sqrt((deviations[:72].reshape(24, 3) ** 2).mean(1)), 3)
    person = np.exp(_SPREAD * rng.standard_normal((count, 1)))
    off = rng.standard_normal((count, 75)) * np.concatenate([turns, deviations[82:]]) * person
    rotations = Rotation.from_rotvec(off[:, :72].reshape(-1, 3)).as_matrix().reshape(count, 24, 3, 3)
    translation = people.translation * np.exp(off[:, 74:].clip(-0.7, 0.7))
    translation[:, :2] += off[:, 72:74] * translation[:, 2:] * (size / people.focal_length)[:, None]
    arrays = (people.rotmats @ rotations, _SHAPE_KNOWN * people.betas, translation)
    return SMPLParameters(*(array.astype(np.float32) for array in arrays))


def main() -> int:
    """Print the table."""
    args, body = parse_args(), load_body()
    joints_of = Kinematics(body, SMPL24)

    def mpjpe(bodies: SMPLParameters, people: SeenPeople) -> float:
        """Mean error of the 24 joints from the pelvis, mm."""
        joints = [joints_of(b.rotmats.astype(float), b.betas.astype(float))[0] for b in (bodies, people)]
        gap = (joints[0] - joints[0][:, :1]) - (joints[1] - joints[1][:, :1])
        return 1000 * float(np.linalg.norm(gap, axis=-1).mean())

    rows = []
    for off_by in OFF_BY:
        for observation in OBSERVATIONS:
            rng = np.random.default_rng(2)
            people = World(body).sample(rng, args.people)
            keypoints, _, size = Observer("coco17", observation)(rng, people)
            low, high = 0.1, 4.0
            while high - low > 0.01:  # errors grow with the scale
                scale = (low + high) / 2
                low, high = (scale, high) if mpjpe(perturbed(people, size, scale), people) < off_by else (low, scale)
            predicted = perturbed(people, size, scale)
            row = {"keypoints": observation, "scale of the errors": scale, "predicted": mpjpe(predicted, people)}
            for factor in FACTORS:
                deviations = expected_deviations()
                deviations[:72] *= factor
                deviations[82:] *= factor
                fit = Fit(body, "coco17", deviations, as_detected=observation == "bundled")
                fitted = fit(*predicted, keypoints, size, people.img_hw, people.focal_length)
                row[f"table x {factor:g}"] = mpjpe(fitted.bodies, people)
            rows.append(row)
    print("MPJPE, mm\n" + cli.table(rows))
    return 0


if __name__ == "__main__":
    cli.run(main)
