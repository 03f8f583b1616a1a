"""The command `cliff annotate` of this checkout."""

from cliff_ms import cli
from cliff_ms.commands.annotate import main

if __name__ == "__main__":
    cli.run(main)
