"""Prefix beam search as SpeechBrain's ``EncoderASR`` builds and calls it."""

import torch
from speechbrain.decoders.ctc import CTCBaseSearcher, CTCHypothesis

from unispeech_sb.decoding.search import PrefixBeamSearch


class PrefixBeamSearcher(CTCBaseSearcher):
    """A ``PrefixBeamSearch`` in SpeechBrain's form.

    In a pretrained folder's ``hyperparams.yaml``::

        decoding_function: !name:unispeech_sb.decoding.PrefixBeamSearcher
        test_beam_search:
            tokenizer: !ref <tokenizer>
            language_model: !ref <language_model>
            hot_words: []
            beam_size: 100

    Arguments
    ---------
    tokenizer : CTCTokenizer
        Of the model's outputs.
    vocab_list : list of str, optional
        The tokens by index, as ``EncoderASR`` gives them.
    topk : int
        Most hypotheses for each recording.
    **options : dict
        Further arguments of ``PrefixBeamSearch``.

    Example
    -------
    >>> from unispeech_sb.dataio.tokenizers import CTCTokenizer
    >>> tokenizer = CTCTokenizer.from_tokens(["-", "|", "a", "b"], 0)
    >>> searcher = PrefixBeamSearcher(tokenizer, beam_size=10)
    >>> frames = torch.eye(4)[[2, 2, 0, 3, 1, 1, 0, 2]].log()
    >>> searcher(frames[None], torch.ones(1))[0][0].text_frames
    [('ab', (0, 4)), ('a', (7, 8))]
    """

    def __init__(self, tokenizer, vocab_list=None, topk=1, **options):
        tokens = [tokenizer.ind2lab[index] for index in range(len(tokenizer))]
        if vocab_list is not None and list(vocab_list) != tokens:
            raise ValueError(
                "searcher: expected the tokens of its tokenizer; got "
                f"{len(vocab_list)} others"
            )
        # SpeechBrain's search is not run: it would read the file once more
        torch.nn.Module.__init__(self)
        self.vocab_list, self.topk = tokens, topk
        self.blank_index = tokenizer.blank_index
        self.search = PrefixBeamSearch(tokenizer, **options)

    def decode_beams(self, log_probs, wav_lens=None, lm_start_state=None):
        """Decodes a batch; what calling the searcher does.

        Arguments
        ---------
        log_probs : torch.Tensor
            Log-posteriors, [B, T, V].
        wav_lens : torch.Tensor, optional
            Valid share of each row, in (0, 1], [B]. All of it when omitted.
        lm_start_state : None
            Texts always begin at their beginning.

        Returns
        -------
        list of list of CTCHypothesis
            For each row the best texts, the best first. ``score`` is that of
            the acoustics, ``lm_score`` the sum with the language model's and
            hot words', as in SpeechBrain's own.

        Raises
        ------
        ValueError
            When another start is asked for.
        """
        if lm_start_state is not None:
            raise ValueError(
                "searcher: expected no start state of the language model, as "
                f"texts begin at their beginning; got {lm_start_state!r:.60}"
            )
        num_frames = log_probs.shape[1]
        if wav_lens is None:
            wav_lens = torch.ones(len(log_probs))
        counts = (wav_lens * num_frames).round().int().tolist()
        return [
            [
                _as_speechbrain(made)
                for made in self.search.decode(row[:count], self.topk)
            ]
            for row, count in zip(log_probs, counts)
        ]


def _as_speechbrain(made):
    """One hypothesis in SpeechBrain's form."""
    return CTCHypothesis(
        text=made.text,
        last_lm_state=None,
        score=made.acoustic_score,
        lm_score=made.score,
        text_frames=[
            (word.text, (round(word.start_s), round(word.end_s)))
            for word in made.words
        ],
    )
