"""The contenders of `benchmark.py`'s section 'fit': ours, and Adam in PyTorch on the same energy, as SMPLify does it.

The rival is treated well: it poses the K keypoints only and not the whole surface, its unknowns are scaled to the
prior's deviations, its noise levels are those that our fit chose, its kernel is the last one, and it stops as soon as
the energy of all people together is as low as ours.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

PEOPLE = 8
KERNEL, NARROWEST = 4.0, 0.3 * 0.6**3  # of the fit's last iteration
STEP, MOST_STEPS = 0.05, 3000  # of 0.02, 0.05, 0.1, 0.2 the rate that got there first
Call = Callable[[], list[np.ndarray]]


def prepare_fit(folder: Path) -> Call:
    """Not a contender: synthetic people with a detector's keypoints, what the bundled model predicts, what we fit."""
    from cliff_ms import load_body, runtime
    from cliff_ms.body.errors import SMPLParameters, prediction_errors
    from cliff_ms.data.crop import normalize_keypoints
    from cliff_ms.inference.fit import Fit
    from cliff_ms.keypoints import COCO17, SMPL45, convert_keypoints, index_map
    from cliff_ms.synthetic.observation import Observer
    from cliff_ms.synthetic.world import World
    from cliff_ms.weights.checkpoint import load_weights
    from cliff_ms.weights.engine import load_network
    from cliff_ms.zoo import bundled_model

    runtime.setup_device("CPU")
    body, weights, rng = load_body(), load_weights(bundled_model()), np.random.default_rng(0)
    network, _ = load_network(weights, "onnxruntime", PEOPLE)
    people = World(body).sample(rng, PEOPLE)
    keypoints, center, size = Observer("coco17", "detector")(rng, people)
    given = convert_keypoints(keypoints, "coco17", weights.meaning.model.joint_set)
    inputs = normalize_keypoints(given, center, size)
    inputs[given[..., 2] == 0] = 0
    arrays = (inputs, center, size, people.img_hw, people.focal_length)
    inputs, center, size, img_hw, focal_length = (np.asarray(array, np.float32) for array in arrays)
    rotmats, betas, _, translation = network(inputs, center, size, img_hw, focal_length)
    deviations = weights.meaning.expected_deviations()
    fitted = Fit(body, "coco17", deviations)(rotmats, betas, translation, keypoints, size, img_hw, focal_length)
    pair = [
        SMPLParameters(*(a.astype(np.float64) for a in bodies))
        for bodies in ((rotmats, betas, translation), fitted.bodies)
    ]
    # The body as far as the keypoints go: joints of the tree, and vertices.
    regressor, chosen = body.joint_regressor, index_map(SMPL45, COCO17)
    shaped = np.concatenate([body.v_template[..., None], body.shapedirs[..., :10]], -1)
    rest, ids = np.tensordot(regressor, shaped, 1), body.extra_vertex_ids
    no_posedirs = np.zeros((24, 3, 207))
    np.savez(
        folder / "fit.npz",
        rotmats=rotmats, betas=betas, translation=translation, keypoints=keypoints, size=size, img_hw=img_hw,
        focal_length=focal_length, deviations=deviations, sigma=2 * fitted.sigma,
        errors=prediction_errors(*pair, size, focal_length), parents=body.parents, rest_joints=rest,
        weights=np.concatenate([np.eye(24), body.weights[ids]])[chosen],
        shaped=np.concatenate([rest, shaped[ids]])[chosen],
        posedirs=np.concatenate([no_posedirs, body.posedirs[ids]])[chosen],
    )  # fmt: skip
    return lambda: []


def our_fit(folder: Path, people: int) -> Call:
    """The fit of demo.py: from predictions to bodies; its output is the mean 2D error, as a share of the crop."""
    from cliff_ms import load_body
    from cliff_ms.body.kinematics import Kinematics
    from cliff_ms.camera import project, to_image
    from cliff_ms.inference.fit import Fit
    from cliff_ms.keypoints import COCO17

    data, body = np.load(folder / "fit.npz"), load_body()
    fit, points = Fit(body, "coco17", data["deviations"]), Kinematics(body, COCO17)
    names = ("rotmats", "betas", "translation", "keypoints", "size", "img_hw", "focal_length")
    arrays = {name: data[name][:people] for name in names}

    def call() -> list[np.ndarray]:
        bodies = fit(**arrays).bodies
        return [bodies.rotmats, bodies.betas, bodies.translation]

    rotmats, betas, translation = call()
    joints = points(rotmats.astype(np.float64), betas.astype(np.float64))[0]
    pixels = to_image(project(joints, translation, arrays["focal_length"]), arrays["img_hw"])
    error = _mean_error(pixels, arrays["keypoints"], arrays["size"])

    def timed() -> list[np.ndarray]:
        call()
        return [error]

    return timed


def adam_fit(folder: Path, people: int) -> Call:
    """Adam in PyTorch until the energy is ours; its output is the same."""
    import torch

    data = {name: torch.tensor(array) for name, array in _first_people(folder, people).items()}
    parents, deviations = data["parents"].tolist(), data["deviations"]
    size, focal_length, sigma = data["size"][:, None], data["focal_length"][:, None], data["sigma"][:, None]
    keypoints, confidence = data["keypoints"][..., :2], data["keypoints"][..., 2].clip(max=1)
    kernel = (KERNEL * sigma).clip(min=NARROWEST)
    depth = data["translation"][:, 2:]
    place = torch.cat([data["translation"][:, :2] / depth * focal_length / size, depth.log()], 1)
    one = torch.ones(people, 1)

    def pixels_of(errors: torch.Tensor) -> torch.Tensor:
        turns = errors[:, :72].reshape(-1, 24, 3)
        cross = torch.zeros(people, 24, 3, 3)
        for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
            cross[..., i, j], cross[..., j, i] = -turns[..., k], turns[..., k]
        rotmats = data["rotmats"] @ torch.linalg.matrix_exp(cross)
        shape = torch.cat([one, data["betas"] + errors[:, 72:82]], 1)
        rest = torch.einsum("jcs,ps->pjc", data["rest_joints"], shape)
        turned, joints = [rotmats[:, 0]], [rest[:, 0]]
        for j, parent in enumerate(parents[1:], 1):
            turned.append(turned[parent] @ rotmats[:, j])
            joints.append(joints[parent] + (turned[parent] @ (rest[:, j] - rest[:, parent])[..., None])[..., 0])
        turned, joints = torch.stack(turned, 1), torch.stack(joints, 1)
        feature = (rotmats[:, 1:] - torch.eye(3)).reshape(people, -1)
        points = torch.einsum("kcs,ps->pkc", data["shaped"], shape)
        points = points + torch.einsum("kcf,pf->pkc", data["posedirs"], feature)
        offsets = joints - (turned @ rest[..., None])[..., 0]
        blended = torch.einsum("kb,pbij->pkij", data["weights"], turned)
        points = (blended @ points[..., None])[..., 0] + torch.einsum("kb,pbi->pki", data["weights"], offsets)
        where = place + errors[:, 82:]
        far = where[:, 2:].exp()
        points = points + torch.cat([where[:, :2] * far * size / focal_length, far], 1)[:, None]
        middle = data["img_hw"].flip(1)[:, None] / 2
        return points[..., :2] / points[..., 2:] * focal_length[..., None] + middle

    def energy(scaled: torch.Tensor) -> torch.Tensor:
        squared = ((keypoints - pixels_of(scaled * deviations)) / (size[..., None] / 2)).square().sum(-1)
        robust = squared / (1 + squared / kernel.square())
        return (confidence * robust / sigma.square()).sum() + scaled.square().sum()

    with torch.no_grad():
        goal = energy(data["errors"] / deviations).item()

    def call() -> list[np.ndarray]:
        scaled = torch.zeros(people, 85, requires_grad=True)
        optimizer = torch.optim.Adam([scaled], STEP)
        for _ in range(MOST_STEPS):
            value = energy(scaled)
            if value.item() <= goal:
                break
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        else:
            raise RuntimeError(f"Adam does not get to {goal:.1f} in {MOST_STEPS} steps, but to {value.item():.1f}.")
        with torch.no_grad():
            pixels = pixels_of(scaled * deviations).numpy()
        return [_mean_error(pixels, data["keypoints"].numpy(), data["size"].numpy())]

    return call


def _first_people(folder: Path, people: int) -> dict[str, np.ndarray]:
    """What `prepare_fit` wrote, of as many people; float32."""
    body = ("deviations", "parents", "rest_joints", "weights", "shaped", "posedirs")
    arrays = {name: array if name in body else array[:people] for name, array in np.load(folder / "fit.npz").items()}
    return {name: array.astype(np.float32) if array.dtype == np.float64 else array for name, array in arrays.items()}


def _mean_error(pixels: np.ndarray, keypoints: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Mean distance of the keypoints there are, as a share of the crop's height, (1,)."""
    distance = np.linalg.norm(pixels - keypoints[..., :2], axis=-1) / size[:, None]
    return distance[keypoints[..., 2] > 0].mean(keepdims=True)
