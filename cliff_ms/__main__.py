"""The command `cliff`: one sub-command for each module of `cliff_ms.commands`."""

import importlib
import sys

from cliff_ms import cli

COMMANDS = {
    "demo": "photos, folders and videos to 3D bodies in the camera of the full image",
    "eval": "score weights on a data set by a published protocol",
    "train": "train a network as a configuration says",
    "annotate": "SMPL annotations for people of whom only 2D keypoints are known",
    "prepare": "a data set as it is downloaded to the annotation file that train and eval read",
    "convert": "weights between PyTorch and MindSpore without losing a bit",
    "export": "a checkpoint to MindIR, ONNX or AIR",
}


def main() -> None:
    """Run one of the commands; without a known one, say which there are and leave with 2 (0 when asked for help)."""
    name, arguments = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("", [])
    if name not in COMMANDS:
        asked = name in ("-h", "--help")
        lines = [f"  {command:9} {text}" for command, text in COMMANDS.items()]
        usage = "\n".join(["usage: cliff COMMAND ...", "", *lines, "", "cliff COMMAND --help tells the rest."])
        problem = "" if asked or not name else f"error: there is no command '{name}'.\n"
        (sys.stdout if asked else sys.stderr).write(f"{problem}{usage}\n")
        sys.exit(0 if asked else 2)
    sys.argv = [f"cliff {name}", *arguments]
    cli.run(importlib.import_module(f"cliff_ms.commands.{name}").main)


if __name__ == "__main__":
    main()
