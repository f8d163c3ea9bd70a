"""A script in one of several processes, with batch norms of its own.

    python -m tests.speechbrain_recipes.own_norms SCRIPT ARGUMENTS

As soon as there are several processes, SpeechBrain makes a SyncBatchNorm of
each batch norm, which no option turns off and PyTorch runs on GPUs alone. Here
they stay what they are, and each process has its own statistics.
"""

import runpy
import sys
from pathlib import Path

from torch.nn import SyncBatchNorm

if __name__ == "__main__":
    SyncBatchNorm.convert_sync_batchnorm = lambda module, *_: module
    del sys.argv[0]
    sys.path.insert(0, str(Path(sys.argv[0]).parent))
    runpy.run_path(sys.argv[0], run_name="__main__")
