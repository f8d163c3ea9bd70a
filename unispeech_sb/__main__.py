"""``python -m unispeech_sb``: the command line."""

import sys

from unispeech_sb.commands import main

if __name__ == "__main__":
    sys.exit(main())
