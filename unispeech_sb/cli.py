"""Another name of ``unispeech_sb.commands``, where the command line is."""

import sys

from unispeech_sb.commands import COMMANDS, main
from unispeech_sb.commands.recipe import recipe

__all__ = ["COMMANDS", "main", "recipe"]

if __name__ == "__main__":
    sys.exit(main())
