"""Speech recognition whose decoding and language change at run time."""

import functools
from pathlib import Path

from speechbrain.inference.ASR import EncoderASR

from unispeech_sb.decoding import (
    HotWords,
    LanguageModel,
    PrefixBeamSearcher,
)
from unispeech_sb.inference.languages import (
    folder_languages,
    language_tokenizer,
)
from unispeech_sb.lobes.adapters import load_adapter


class SwitchableASR(EncoderASR):
    """SpeechBrain's ``EncoderASR`` with a choice of decoding and language.

    What is chosen holds for all methods, those of ``EncoderASR`` too.

    Arguments
    ---------
    *args : tuple
        As for ``EncoderASR``.
    folder : str or path-like, optional
        Where the languages are; ``from_hparams`` sets it.
    **kwargs : dict
        As for ``EncoderASR``.

    Example
    -------
    >>> from functools import partial
    >>> from speechbrain.decoders import ctc_greedy_decode
    >>> from unispeech_sb.dataio.tokenizers import CTCTokenizer
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> from unispeech_sb.lobes.heads import FrameHead, FramePosteriors
    >>> backbone, head = Backbone.from_preset("tiny"), FrameHead(16, 4)
    >>> asr = SwitchableASR(
    ...     {"encoder": FramePosteriors(backbone, head)},
    ...     {
    ...         "tokenizer": CTCTokenizer.from_tokens(["-", "|", "a", "b"], 0),
    ...         "decoding_function": partial(ctc_greedy_decode, blank_id=0),
    ...     },
    ... )
    >>> asr.use_beam_search(beam_size=10)
    >>> asr.use_hot_words(["abba"])
    >>> asr.languages
    []
    """

    def __init__(self, *args, folder=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.folder = folder
        known = functools.partial, PrefixBeamSearcher
        if not isinstance(self.decoding_function, known):
            raise ValueError(
                "decoding_function: expected !name:speechbrain.decoders."
                "ctc_greedy_decode with arguments, or !name:unispeech_sb."
                "decoding.PrefixBeamSearcher; got "
                f"{type(self.decoding_function).__name__}"
            )

    @classmethod
    def from_hparams(cls, source, *args, **kwargs):
        """Loads a pretrained folder.

        Arguments
        ---------
        source : str or path-like
            The folder.
        *args : tuple
            As for ``EncoderASR``.
        **kwargs : dict
            As for ``EncoderASR`` and the constructor.

        Returns
        -------
        SwitchableASR
            On the device of ``run_opts``, in evaluation mode.
        """
        return super().from_hparams(source, *args, folder=source, **kwargs)

    @property
    def decodes_greedily(self):
        """Whether no beam search is in use."""
        return isinstance(self.decoding_function, functools.partial)

    @property
    def languages(self):
        """Languages that ``set_language`` takes, in alphabetical order."""
        return [] if self.folder is None else folder_languages(self.folder)

    def use_beam_search(self, **options):
        """Decodes by prefix beam search from now on.

        Arguments
        ---------
        **options : dict
            Arguments of ``PrefixBeamSearcher``, such as ``beam_size``; what
            is not given stays as it is.

        Raises
        ------
        ValueError
            When an option does not fit; the decoding stays as it was then.
        """
        self._decode_by(*self._search(self.tokenizer, options))

    def use_language_model(self, path, **options):
        """Decodes by beam search with an n-gram from now on.

        Arguments
        ---------
        path : str or path-like or None
            An ARPA file or a KenLM binary; None takes the language model in
            use away.
        **options : dict
            Arguments of ``LanguageModel``, such as ``alpha`` and ``beta``.

        Raises
        ------
        ValueError
            When the file is none; the decoding stays as it was then.
        """
        if path is None and self.decodes_greedily:
            return
        model = None if path is None else LanguageModel(path, **options)
        self.use_beam_search(language_model=model)

    def use_hot_words(self, words, **options):
        """Decodes by beam search that prefers some words from now on.

        Arguments
        ---------
        words : iterable of str
            Words or phrases; none to prefer none again.
        **options : dict
            Arguments of ``HotWords``, such as ``weight``.
        """
        words = list(words)
        hot_words = HotWords(words, **options) if words else None
        self.use_beam_search(hot_words=hot_words)

    def set_language(self, lang):
        """Switches adapters, head and tokenizer to a language.

        All of them switch, or none does where something does not fit.

        Arguments
        ---------
        lang : str
            One of ``languages``.

        Raises
        ------
        ValueError
            When the folder has no such language, its files do not fit, or a
            language model is in use, which is of another language.
        """
        if self.folder is None or not Path(self.folder).is_dir():
            raise ValueError(
                "language: expected a recogniser that was loaded from a "
                f"folder; got {self.folder}"
            )
        options = self._search_options()
        if options.get("language_model") is not None:
            raise ValueError(
                f"language: {lang!r} cannot go with the language model in use, "
                "which is of another one; use_language_model(None) first"
            )
        tokenizer = language_tokenizer(self.folder, lang, self.tokenizer)
        decoding = None
        if not self.decodes_greedily:
            decoding = self._search(tokenizer, {})
        encoder = self.mods.encoder
        load_adapter(self.folder, lang, encoder.backbone, encoder.head)
        self.tokenizer = self.hparams.tokenizer = tokenizer
        if decoding is not None:
            self._decode_by(*decoding)

    def _search_options(self):
        """Arguments of the beam search in use."""
        if self.decodes_greedily:
            return {}
        return getattr(self.hparams, "test_beam_search", {})

    def _search(self, tokenizer, options):
        """A beam search, and the arguments that it is made of."""
        given = {**self._search_options(), **options, "tokenizer": tokenizer}
        labels = tokenizer.ind2lab
        vocab_list = [labels[index] for index in range(len(labels))]
        return PrefixBeamSearcher(**given, vocab_list=vocab_list), given

    def _decode_by(self, searcher, options):
        """Puts a beam search where a folder's yaml puts it."""
        self.decoding_function = searcher
        self.hparams.decoding_function = PrefixBeamSearcher
        self.hparams.test_beam_search = options
