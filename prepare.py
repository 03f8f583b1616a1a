"""The command `cliff prepare` of this checkout."""

from cliff_ms import cli
from cliff_ms.commands.prepare import main

if __name__ == "__main__":
    cli.run(main)
