#!/usr/bin/env bash
# Sets up .venv and makes SMPL annotations of 2D keypoints.
#   bash scripts/run_annotate.sh [annotate.py flags]
# Without flags: the bundled keypoint model annotates 60 bundled synthetic people from what a noisy keypoint detector
# reports of them. Their true bodies are known, so the table shows 3D errors too. A run that was ended goes on.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup_env.sh requirements.txt

if [[ $# -gt 0 ]]; then
  exec "$PYTHON" annotate.py "$@"
fi
mkdir -p outputs/annotate
"$PYTHON" - <<'PYTHON'
from dataclasses import replace

import numpy as np

from cliff_ms.data.annotations import load_annotations, save_annotations

known = load_annotations("model_zoo/heldout/annotations.npz", ["input_keypoints_noisy"]).take(slice(60))
seen = {"input_keypoints": known.extras["input_keypoints_noisy"], "keypoints2d": np.zeros_like(known.keypoints2d)}
save_annotations("outputs/annotate/people.npz", replace(known, **seen, extras={}))
PYTHON
"$PYTHON" annotate.py --config configs/annotator_keypoints.yaml --ckpt model_zoo/cliff_keypoints.safetensors \
  --annotations outputs/annotate/people.npz --image_dir model_zoo/heldout --output outputs/annotate/annotations.npz \
  --exact_keypoints  # joints of the body with noise, as nobody's own photos have them
echo
echo "Look at outputs/annotate/annotations.work/index.html (keypoints, before, after, from the side, and in 3D)."
echo "Your own people: bash scripts/run_annotate.sh --config configs/annotator_keypoints.yaml --ckpt ... (--help)"
