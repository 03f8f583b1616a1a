"""The command `cliff export` of this checkout."""

from cliff_ms import cli
from cliff_ms.commands.export import main

if __name__ == "__main__":
    cli.run(main)
