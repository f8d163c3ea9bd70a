"""Label encoders that refuse damaged files and decode without warnings."""

from collections.abc import Sequence
from pathlib import Path

from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.utils.checkpoints import (
    mark_as_transfer,
    register_checkpoint_hooks,
)

_ARROW = " => "  # between label and index in SpeechBrain's files


@register_checkpoint_hooks
class LabelEncoder(CategoricalEncoder):
    """SpeechBrain's encoder, for pretrained folders.

    SpeechBrain passes over a missing or damaged ``label_encoder.ckpt`` and
    fails with ``KeyError: 0`` at the first decision; this one raises at once.
    It also fixes its length, so that decoding prints no warning.

    Example
    -------
    >>> encoder = LabelEncoder.from_labels(["no", "yes"])
    >>> encoder.decode_ndim([1, 0])
    ['yes', 'no']
    """

    @classmethod
    def from_labels(cls, labels: Sequence[str]) -> "LabelEncoder":
        """Makes the encoder of an ordered list.

        Arguments
        ---------
        labels : list of str
            The label of index 0, 1, ...

        Returns
        -------
        LabelEncoder
            With one index for each label.
        """
        for label in labels:
            if _ARROW in str(label):
                raise ValueError(
                    f"label encoder: expected labels without {_ARROW!r}, which "
                    "SpeechBrain's file format cannot hold; got "
                    f"{str(label)[:60]!r}"
                )
        encoder = cls()
        encoder.update_from_iterable(labels)
        if len(encoder) != len(list(labels)):
            raise ValueError(
                "label encoder: expected distinct labels; got "
                f"{len(list(labels))} with {len(encoder)} different ones"
            )
        encoder.expect_len(len(encoder))
        return encoder

    @classmethod
    def read_labels(cls, path: str | Path) -> list[str]:
        """Reads the labels of a file by index.

        Arguments
        ---------
        path : str or pathlib.Path
            A file that ``save`` wrote.

        Returns
        -------
        list of str
            The label of index 0, 1, ...
        """
        encoder = cls()
        encoder.load_strict(path)
        return [encoder.ind2lab[index] for index in range(len(encoder))]

    @mark_as_transfer
    def load_strict(self, path: str | Path) -> None:
        """Loads a file that must be there and whole.

        Arguments
        ---------
        path : str or pathlib.Path
            A file that ``save`` wrote.

        Raises
        ------
        ValueError
            When the file is missing, damaged or empty.
        """
        try:
            self.load(path)
        except (
            OSError,
            ValueError,
            SyntaxError,
            KeyError,
            TypeError,
            RecursionError,
            MemoryError,
        ) as error:
            raise ValueError(
                f"{path}: expected labels as a label encoder saves them "
                f"({type(error).__name__})"
            ) from error
        if sorted(self.ind2lab) != list(range(len(self))) or not len(self):
            raise ValueError(
                f"{path}: expected labels for the indices 0, 1, ...; "
                f"got {sorted(self.ind2lab)[:5]}"
            )
        self.expect_len(len(self))
