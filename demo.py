"""The command `cliff demo` of this checkout."""

from cliff_ms import cli
from cliff_ms.commands.demo import main

if __name__ == "__main__":
    cli.run(main)
