"""The command `cliff eval` of this checkout."""

from cliff_ms import cli
from cliff_ms.commands.eval import main

if __name__ == "__main__":
    cli.run(main)
