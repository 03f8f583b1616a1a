"""The command `cliff train` of this checkout."""

from cliff_ms import cli
from cliff_ms.commands.train import main

if __name__ == "__main__":
    cli.run(main)
