#!/usr/bin/env bash
# From a clean clone to bodies in a picture: sets up .venv and runs the demo on the bundled picture.
#   bash scripts/quickstart.sh
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup_env.sh requirements.txt

"$PYTHON" demo.py model_zoo/examples/people.jpg --boxes model_zoo/examples/people_boxes.json \
  --focal_length 1100 --output_dir outputs/quickstart
echo
echo "Look at outputs/quickstart/index.html (pictures, and a 3D view to turn with the mouse)."
echo "Your own photo: $PYTHON demo.py photo.jpg --boxes boxes.json   (--help tells the rest)"
