#!/usr/bin/env bash
# From a clean clone to scores and bodies in pictures: sets up .venv, evaluates the bundled model on the bundled held-out
# people, and runs the demo on bundled pictures.
#   bash scripts/quickstart.sh
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup_env.sh requirements.txt

echo "1. The bundled model on 713 synthetic people that it was not trained on:"
"$PYTHON" eval.py --device_target CPU
echo
echo "2. The demo on a bundled picture:"
"$PYTHON" demo.py model_zoo/examples/people.jpg --keypoints model_zoo/examples/people_keypoints.json \
  --focal_length 1100 --device_target CPU --output_dir outputs/quickstart
echo
echo "Look at outputs/quickstart/index.html (pictures, and a 3D view to turn with the mouse)."
echo "Your own photo: $PYTHON demo.py photo.jpg --keypoints openpose.json   (--help tells the rest)"
