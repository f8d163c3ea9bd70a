"""CTC's greedy path as words with times and confidences."""

from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

import torch

from unispeech_sb.decoding.spelling import Spelling


@dataclass(frozen=True)
class Word:
    """A word, or a phone, and when it was said.

    Arguments
    ---------
    text : str
        The word.
    start_s, end_s : float
        Beginning of the first frame on which the model wrote it, and end of
        the last, in seconds. CTC models write a token on one or two frames
        near its middle: the word may sound a little longer.
    confidence : float
        Geometric mean of the probabilities of its tokens on their frames, in
        [0, 1].

    Example
    -------
    >>> Word("yes", 0.1, 0.4, 0.9).text
    'yes'
    """

    text: str
    start_s: float
    end_s: float
    confidence: float


@dataclass(frozen=True)
class Transcript:
    """What is said in a recording.

    Arguments
    ---------
    text : str
        All of it.
    words : tuple of Word
        In order; one per token where the tokenizer has no word delimiter.
    duration_s : float
        Length of the recording in seconds.

    Example
    -------
    >>> Transcript("yes", (Word("yes", 0.1, 0.4, 0.9),), 1.0).duration_s
    1.0
    """

    text: str
    words: tuple
    duration_s: float


class WordDecoder:
    """Greedy decoding of log-posteriors that come in pieces.

    Arguments
    ---------
    tokenizer : CTCTokenizer
        Of the model's outputs.
    frame_s : float
        Seconds from one frame to the next.

    Example
    -------
    >>> from unispeech_sb.dataio.tokenizers import CTCTokenizer
    >>> tokenizer = CTCTokenizer.from_tokens(["-", "|", "a", "b"], 0)
    >>> decoder = WordDecoder(tokenizer, frame_s=0.02)
    >>> frames = torch.eye(4)[[2, 2, 0, 3, 1, 1, 0, 2]].log()
    >>> [word.text for word in decoder.push(frames)]
    ['ab']
    >>> decoder.finish()
    [Word(text='a', start_s=0.14, end_s=0.16, confidence=1.0)]
    """

    def __init__(self, tokenizer, frame_s):
        self.frame_s, self.spelling = frame_s, Spelling(tokenizer)
        self._begin, self._frames = 0, []

    def push(self, log_probs):
        """Decodes the next frames.

        Arguments
        ---------
        log_probs : torch.Tensor
            Log-posteriors, [T, V].

        Returns
        -------
        list of Word
            Those that no later frame can change.
        """
        scores, indices = log_probs.float().max(-1)
        self._frames += zip(indices.tolist(), scores.tolist())
        return self._decode(self._final())

    def finish(self):
        """Decodes what is left.

        Returns
        -------
        list of Word
            The last words.
        """
        return self._decode(len(self._frames))

    def partial(self):
        """Reads what no push has returned yet; later frames may change it.

        Returns
        -------
        list of Word
            The words heard since.
        """
        return self._words(self._frames)

    def join(self, words):
        """Writes words as one text.

        Arguments
        ---------
        words : iterable of Word
            In order.

        Returns
        -------
        str
            The text.
        """
        return self.spelling.joint.join(word.text for word in words)

    def _final(self):
        """Counts the frames up to where the last unfinished word begins."""
        frames, spelling = self._frames, self.spelling
        last = len(frames) - 1
        if not spelling.by_token:
            while last >= 0 and frames[last][0] not in spelling.edges:
                last -= 1
        if last < 0 or frames[last][0] == spelling.delimiter:
            return last + 1
        # The last token, which begins or is a word, may go on
        index = frames[last][0]
        while last >= 0 and frames[last][0] == index:
            last -= 1
        return last + 1

    def _decode(self, num_frames):
        """Takes frames off the front and returns their words."""
        words = self._words(self._frames[:num_frames])
        self._frames = self._frames[num_frames:]
        self._begin += num_frames
        return words

    def _words(self, frames):
        """Words of frames that begin where the first unfinished word does."""
        tokens = [
            token
            for token in _runs(frames, self._begin)
            if token.index not in self.spelling.silent
        ]
        words = self.spelling.split(tokens, attrgetter("index"))
        made = (self._word(word) for word in words)
        return [word for word in made if word.text]

    def _word(self, tokens):
        """Makes a word of its tokens; one without text of special tokens."""
        scores = torch.tensor(
            [score for token in tokens for score in token.scores],
            dtype=torch.float64,
        )
        return Word(
            self.spelling.word([token.index for token in tokens]),
            round(tokens[0].first * self.frame_s, 6),
            round(tokens[-1].last * self.frame_s, 6),
            min(scores.mean().exp().item(), 1.0),
        )


@dataclass(frozen=True)
class _Token:
    """A run of frames with one best index; ``last`` is the frame after it."""

    index: int
    first: int
    last: int
    scores: list


def _runs(frames, begin):
    """Merges the repeats of (index, score) pairs."""
    for index, run in groupby(frames, key=lambda frame: frame[0]):
        scores = [score for _, score in run]
        yield _Token(index, begin, begin + len(scores), scores)
        begin += len(scores)


def greedy_transcript(log_probs, tokenizer, frame_s, duration_s):
    """Decodes the log-posteriors of a whole recording.

    Arguments
    ---------
    log_probs : torch.Tensor
        Log-posteriors, [T, V].
    tokenizer : CTCTokenizer
        Of the model's outputs.
    frame_s : float
        Seconds from one frame to the next.
    duration_s : float
        Length of the recording in seconds.

    Returns
    -------
    Transcript
        Its text and words.

    Example
    -------
    >>> from unispeech_sb.dataio.tokenizers import CTCTokenizer
    >>> tokenizer = CTCTokenizer.from_tokens(["-", "|", "a", "b"], 0)
    >>> frames = torch.eye(4)[[2, 2, 0, 3, 1, 1, 0, 2]].log()
    >>> greedy_transcript(frames, tokenizer, 0.02, 0.2).text
    'ab a'
    """
    decoder = WordDecoder(tokenizer, frame_s)
    words = [*decoder.push(log_probs), *decoder.finish()]
    return Transcript(decoder.join(words), tuple(words), duration_s)
