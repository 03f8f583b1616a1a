"""The people that a network did worst on, in one picture."""

import cv2
import numpy as np

from cliff_ms.body.files import Body
from cliff_ms.data.batching import filled_batches
from cliff_ms.data.crop import crop_affine
from cliff_ms.data.dataset import EvalDataset
from cliff_ms.evaluation.scoring import Evaluator
from cliff_ms.io.images import read_image
from cliff_ms.visual.render import PALETTE, render_overlay
from cliff_ms.weights.networks import Network

_TILE_HW = (384, 288)
_MARGIN = 1.2  # of what is shown around the crop
_TEXT_HEIGHT = 22  # px
_PAIRS_PER_ROW = 3


def draw_worst(
    network: Network, evaluator: Evaluator, body: Body, data: EvalDataset, mpjpe: np.ndarray, count: int
) -> np.ndarray:
    """Draw the people with the largest errors, worst first: each one's surroundings and the prediction over them.

    Args:
        network: The network.
        evaluator: For the bodies.
        body: The neutral body.
        data: The rows that were scored, with an image folder.
        mpjpe: (N,) mm of each row.
        count: People.

    Returns:
        (h, w, 3) uint8 RGB.

    Raises:
        InputError: A bad image.
    """
    worst = np.argsort(-mpjpe, kind="stable")[:count]
    tiles = []
    for places, kept in filled_batches(len(worst), data.batch_size):
        chosen = worst[places]
        batch = data.read(data.rows[chosen])
        outputs = evaluator.refine(data.rows[chosen], batch, network(*batch.network_inputs))
        rotmats, betas, _, translation = outputs
        vertices = evaluator.pose(betas, rotmats, np.full(len(betas), "n"))[0] + translation[:, None]
        for k in range(kept):
            row, path = data.rows[chosen[k]], data.source.image_path(data.rows[chosen[k]])
            image = read_image(path)
            overlay = render_overlay(image, [(vertices[k], PALETTE[0])], body.faces, float(batch.focal_length[k]))
            shown = batch.center[k], _MARGIN * batch.bbox_size[k], _TILE_HW
            pair = [crop_affine(picture, *shown) for picture in (image, overlay)]
            tiles.append(_captioned(np.hstack(pair), f"row {row}: {mpjpe[chosen[k]]:.0f} mm  {path.name}"))
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % min(_PAIRS_PER_ROW, len(tiles)))
    width = min(_PAIRS_PER_ROW, len(tiles))
    return np.vstack([np.hstack(tiles[k : k + width]) for k in range(0, len(tiles), width)])


def _captioned(tile: np.ndarray, text: str) -> np.ndarray:
    tile = cv2.copyMakeBorder(tile, _TEXT_HEIGHT, 4, 4, 4, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    cv2.putText(tile, text, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return tile
