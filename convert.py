"""The command `cliff convert` of this checkout."""

from cliff_ms import cli
from cliff_ms.commands.convert import main

if __name__ == "__main__":
    cli.run(main)
