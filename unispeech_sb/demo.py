"""The main job end to end on the embedded corpus: what ``make demo`` runs."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path("results", "demo")
TRAINING = {
    "synthetic": True,
    "num_classes": 10,
    "number_of_epochs": 24,
    "warmup_updates": 60,
    "hold_updates": 140,
    "decay_updates": 260,
}
"""Keys of hparams/keyword_spotting.yaml that the demo changes."""

LAST_WORDS = """
What was done, in {minutes:.1f} minutes:
  1. espeak-ng spoke 10 words with 100 voices       {folder}/corpus
  2. a small model learned them from 60 voices      {folder}/train_log.txt
  3. {right} right on 20 voices it never heard       {folder}/confusion.png
  4. it was exported, and loaded by SpeechBrain     {folder}/export
  5. it hears "{label}" (probability {score:.2f}) in{space}{folder}/example.wav

Synthetic speech shows that all parts work; it is no benchmark. Now type:
  {command} recipe
  {command} recipe keyword_spotting --data_folder=speech_commands_v0.02
  make test
to see what can be trained, to train on real speech, to check all of it.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Speaks a corpus, trains, scores, exports, reloads and classifies.

    Arguments
    ---------
    argv : list of str, optional
        Overrides of the recipe's yaml, as ``--number_of_epochs=2``.

    Example
    -------
    >>> "keyword_spotting" in LAST_WORDS  # the test suite runs all of it
    True
    """
    from speechbrain.inference.classifiers import EncoderClassifier

    from unispeech_sb.cli import recipe
    from unispeech_sb.dataio.manifest import read_manifest

    start = time.monotonic()
    overrides = {
        **TRAINING,
        "data_folder": FOLDER / "corpus",
        "output_folder": FOLDER,
    }
    options = [f"--{key}={value}" for key, value in overrides.items()]
    scores = recipe(["keyword_spotting", *options, *(argv or [])])
    assert scores is not None  # those of a recipe that ran
    classifier = EncoderClassifier.from_hparams(source=str(FOLDER / "export"))
    example = FOLDER / "example.wav"
    shutil.copy(read_manifest(FOLDER / "manifests/test.csv")[0]["wav"], example)
    _, score, _, label = classifier.classify_file(str(example))
    print(
        LAST_WORDS.format(
            minutes=(time.monotonic() - start) / 60,
            folder=FOLDER,
            right=f"{scores['accuracy']:6.1%}",
            label=label[0],
            space=" " * (14 - len(label[0])),
            score=score.exp().item(),
            command=".venv/bin/unispeech-sb",
        )
    )
