"""Random adult bodies from the morph targets of the assets."""

from pathlib import Path

import numpy as np

from body.assets import SKIN_COUNT, BaseMesh, read_target

# Local sliders, each with a `-decr` and an `-incr` target: folder/name, standard deviation, and how much of one
# standard deviation of the common "adiposity" factor goes into it. A `{}` stands for l and r, moved together.
SLIDERS = (
    ("arms/measure-upperarm-length", 0.3, 0.0),
    ("arms/measure-lowerarm-length", 0.3, 0.0),
    ("arms/measure-upperarm-circ", 0.3, 0.3),
    ("arms/{}-lowerarm-fat", 0.3, 0.2),
    ("legs/measure-upperleg-height", 0.25, 0.0),
    ("legs/measure-lowerleg-height", 0.25, 0.0),
    ("legs/measure-thigh-circ", 0.3, 0.4),
    ("legs/measure-calf-circ", 0.3, 0.2),
    ("torso/torso-scale-vert", 0.25, 0.0),
    ("torso/torso-scale-horiz", 0.25, 0.0),
    ("torso/torso-scale-depth", 0.3, 0.2),
    ("torso/torso-vshape", 0.3, -0.1),
    ("torso/measure-shoulder-dist", 0.4, 0.0),
    ("torso/measure-bust-circ", 0.3, 0.2),
    ("torso/measure-underbust-circ", 0.3, 0.3),
    ("torso/measure-waist-circ", 0.35, 0.6),
    ("torso/measure-hips-circ", 0.35, 0.4),
    ("hip/hip-scale-horiz", 0.3, 0.0),
    ("stomach/stomach-tone", 0.3, -0.4),
    ("buttocks/buttocks-volume", 0.4, 0.3),
    ("neck/measure-neck-circ", 0.3, 0.3),
    ("neck/measure-neck-height", 0.3, 0.0),
    ("head/head-scale-vert", 0.3, 0.0),
    ("head/head-scale-horiz", 0.3, 0.0),
    ("hands/{}-hand-scale", 0.25, 0.0),
    ("feet/{}-foot-scale", 0.25, 0.0),
)
STATURE = {"male": (1.76, 0.07), "female": (1.63, 0.065)}  # mean and standard deviation, m


def read_targets(folder: Path, mesh: BaseMesh) -> tuple[list[str], np.ndarray]:
    """Read the targets that make adults: macro targets (age, build, race, height, breast) and the local sliders.

    Args:
        folder: The `mpfb2` folder.
        mesh: The base mesh.

    Returns:
        The names (K) and the offsets (K, 13408, 3) float32 m of skin, joint centres and knuckles.

    Raises:
        FileNotFoundError: The folder lacks a slider's target or all macro targets.
    """
    targets = folder / "targets"
    # The names of macro targets are lists of levels: "female-young-maxmuscle-averageweight-maxheight".
    macro = sorted(targets.glob("macrodetails/**/*.target.gz")) + sorted(targets.glob("breast/female-*.target.gz"))
    macro = [path for path in macro if not {"baby", "child"} & set(_stem(path).split("-"))]
    if not macro:
        raise FileNotFoundError(f"There are no macro targets in {targets}: expected macrodetails/**/*.target.gz.")
    names = [_stem(path) for path in macro]
    offsets = [read_target(path, mesh) for path in macro]
    for slider, _, _ in SLIDERS:
        for end in ("decr", "incr"):
            sides = "lr" if "{}" in slider else "l"
            paths = [targets / f"{slider.format(side)}-{end}.target.gz" for side in sides]
            names.append(f"{slider}:{end}")
            # read_target halves a target that moves one side only; its mirror image brings the other half.
            offsets.append(sum(read_target(path, mesh) for path in paths))
    return names, np.stack(offsets)


def sample_weights(names: list[str], count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw random adults: half women, half men, all builds; the height slider is left open.

    A macro target's weight is the product of the levels its name lists, each level being a hat function of its slider.

    Args:
        names: Names of the targets (K).
        count: Number of adults.
        rng: Source of randomness.

    Returns:
        Weights (count, K) with both ends of the height slider at full strength, which `solve_height` scales, and
        the statures to reach (count,) m.
    """
    male = rng.permutation(np.arange(count) % 2).astype(bool)
    adiposity = rng.normal(0.3, 1.0, count)
    levels = _macro_levels(male, rng)
    for slider, deviation, fat in SLIDERS:
        value = np.clip(rng.normal(0.0, deviation, count) + fat * adiposity, -1.2, 1.2)
        levels |= {f"{slider}:decr": np.maximum(-value, 0), f"{slider}:incr": np.maximum(value, 0)}
    weights = np.ones((count, len(names)))
    for column, name in enumerate(names):
        for level in [name] if name in levels else name.split("-"):
            weights[:, column] *= levels[level]
    mean, deviation = np.where(male[:, None], STATURE["male"], STATURE["female"]).T
    return weights, rng.normal(mean, deviation)


def solve_height(
    names: list[str], weights: np.ndarray, statures: np.ndarray, base: np.ndarray, offsets: np.ndarray
) -> np.ndarray:
    """Set the height slider of every sample by bisection, so that the sample has its stature.

    Args:
        names: Names of the targets (K).
        weights: (N, K), from `sample_weights`.
        statures: (N,) m.
        base: (P, 3) m, points of the base mesh, skin first.
        offsets: (K, P, 3) m.

    Returns:
        (N, K) float32 final weights of the targets.
    """
    low = np.array(["minheight" in name.split("-") for name in names])
    high = np.array(["maxheight" in name.split("-") for name in names])
    height = offsets[:, :SKIN_COUNT, 1]  # only y matters
    rest_y = base[:SKIN_COUNT, 1] + (weights * ~(low | high)) @ height
    low_y, high_y = (weights * low) @ height, (weights * high) @ height
    slider = np.zeros(len(weights))
    for row in range(len(weights)):
        bounds = [-1.0, 1.0]  # -1 is the lowest end of the slider, +1 the highest
        for _ in range(24):
            middle = sum(bounds) / 2
            y = rest_y[row] + max(-middle, 0) * low_y[row] + max(middle, 0) * high_y[row]
            bounds[int(np.ptp(y) > statures[row])] = middle
        slider[row] = sum(bounds) / 2
    scale = np.where(low, np.maximum(-slider, 0)[:, None], np.where(high, np.maximum(slider, 0)[:, None], 1.0))
    return (weights * scale).astype(np.float32)


def _macro_levels(male: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    count = len(male)
    gender = np.clip(np.where(male, 0.92, 0.08) + rng.normal(0.0, 0.08, count), 0, 1)
    age = rng.beta(1.2, 2.2, count)  # 0 young, 1 old
    races = rng.dirichlet((0.8, 0.8, 0.8), count)
    levels = {"female": 1 - gender, "male": gender, "young": 1 - age, "old": age, "universal": np.ones(count)}
    levels |= {"minheight": np.ones(count), "maxheight": np.ones(count)}
    levels |= dict(zip(("african", "asian", "caucasian"), races.T, strict=True))
    levels |= _hats("muscle", rng.beta(1.8, 2.4, count))
    levels |= _hats("weight", rng.beta(2.6, 1.4, count))
    levels |= _hats("cup", rng.beta(2.0, 2.0, count))
    levels |= _hats("firmness", rng.beta(2.0, 2.0, count))
    proportions = np.clip(rng.normal(0.55, 0.2, count), 0, 1)
    levels["uncommonproportions"] = np.maximum(1 - 2 * proportions, 0)
    levels["idealproportions"] = np.maximum(2 * proportions - 1, 0)
    return levels


def _hats(name: str, value: np.ndarray) -> dict[str, np.ndarray]:
    low, high = np.maximum(1 - 2 * value, 0), np.maximum(2 * value - 1, 0)
    return {f"min{name}": low, f"average{name}": 1 - low - high, f"max{name}": high}


def _stem(path: Path) -> str:
    return path.name.removesuffix(".target.gz")
