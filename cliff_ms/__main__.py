"""The command `cliff VERB ...`, also `python -m cliff_ms VERB ...`."""

import argparse
import importlib
import sys

import cliff_ms
from cliff_ms import cli
from cliff_ms.commands import VERBS


def main() -> None:
    """Run the verb that was named; only its own module is imported, and only then."""
    parser = argparse.ArgumentParser(prog="cliff", description=cliff_ms.__doc__)
    parser.add_argument("--version", action="version", version=f"cliff_ms {cliff_ms.__version__}")
    verbs = parser.add_subparsers(
        dest="verb", required=True, metavar="VERB", title="verbs", description="'cliff VERB --help' tells the rest"
    )
    for name, line in VERBS.items():
        verbs.add_parser(name, help=line)
    verb = parser.parse_args(sys.argv[1:2]).verb  # what follows is for the verb's own parser
    sys.argv = [f"cliff {verb}", *sys.argv[2:]]
    cli.run(importlib.import_module(f"cliff_ms.commands.{verb}").main)


if __name__ == "__main__":
    main()
