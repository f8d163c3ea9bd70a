"""The authors' files, read, for tests to change."""

import pytest

from tests.checkpoints.fairseq.comparing import CTC, SAT, STAGE1
from unispeech_sb.checkpoints.safety.pickles import read_objects


@pytest.fixture
def stage1(authors_folder):
    """Content of a file of the first stage, to change."""
    return read_objects(authors_folder / STAGE1)


@pytest.fixture
def ctc(authors_folder):
    """Content of a fine-tuned CTC model."""
    return read_objects(authors_folder / CTC)


@pytest.fixture
def sat(authors_folder):
    """Content of a UniSpeech-SAT file."""
    return read_objects(authors_folder / SAT)
