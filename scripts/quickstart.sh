#!/usr/bin/env bash
# From a clean clone to scores and bodies in photos: sets up .venv, evaluates the bundled model on the bundled held-out
# people, and runs the demo on bundled photos.
#   bash scripts/quickstart.sh
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup_env.sh requirements.txt

echo "1. The bundled model on 713 synthetic people that it was not trained on:"
"$PYTHON" eval.py --device_target CPU
echo
echo "2. The demo on two photos, and on a rendered picture with four people:"
"$PYTHON" demo.py model_zoo/examples/000000000785.jpg model_zoo/examples/astronaut.jpg model_zoo/examples/people.jpg \
  --device_target CPU --output_dir outputs/quickstart
echo
echo "Look at outputs/quickstart/index.html (pictures, and a 3D view to turn with the mouse)."
echo "Your own: source .venv/bin/activate; cliff demo photo.jpg   (--help tells the rest)"
