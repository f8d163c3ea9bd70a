"""Speech recognition of long recordings and of many files.

On top of SpeechBrain's ``EncoderASR``, from the same folders. A long
recording goes through the model in overlapping windows whose log-posteriors
are stitched; several windows are a batch, of one recording or of many.
Decoding and language can be changed at run time.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from speechbrain.inference.ASR import EncoderASR

from unispeech_sb.checkpoints.files import read_tensors
from unispeech_sb.checkpoints.pretrained_folder import TEXTS_FOLDER
from unispeech_sb.checkpoints.texts import read_json, read_tokens
from unispeech_sb.dataio.audio import (
    FILE_ERRORS,
    AudioError,
    attempt,
    error_of,
    naming,
)
from unispeech_sb.dataio.tokenizers import CTCTokenizer
from unispeech_sb.decoding import (
    Alignment,
    BeamWordDecoder,
    ForcedAligner,
    HotWords,
    LanguageModel,
    PrefixBeamSearcher,
    Transcript,
    Word,
    WordDecoder,
)
from unispeech_sb.inference.audio_blocks import (
    Reading,
    Source,
    ahead,
    as_source,
    check_batch_seconds,
    is_stream,
    load_audio,
    run_files,
    source_name,
)
from unispeech_sb.inference.loading import CheckedFolder, expect_exportable
from unispeech_sb.inference.window_encoder import WindowEncoder
from unispeech_sb.lobes.adapters import (
    CLASSIFIER,
    SUFFIXES,
    adapter_languages,
    load_adapter,
)
from unispeech_sb.lobes.heads import FramePosteriors
from unispeech_sb.nnet.frontend import FeatureExtractor

_VOCABULARY = "vocab.json"


class LongFormASR(CheckedFolder, EncoderASR):
    """CTC recognition of recordings of any length.

    Loads with ``from_hparams`` what ``EncoderASR`` loads, where the module
    ``encoder`` holds a ``Backbone``, and has its methods too. Recordings up
    to ``window_s`` go through the model at once, as in ``transcribe_file``.
    A beam search, a language model, hot words or a language that is chosen
    applies to all methods, those of ``EncoderASR`` too.

    How a longer recording is cut changes only how much context a frame has:
    ``context_s`` at least on both sides. A model whose receptive field is no
    wider gives the same log-posteriors however it is cut, within 1e-3 on
    logits of +-20; one that attends further changes a little. For that, what
    a model normalises over time (the waveform, and the first convolution of
    Base models) is normalised by statistics of the whole recording;
    ``output_norm`` stays one of each window. The backbone is changed while
    windows run, so one object cannot serve several threads.

    Arguments
    ---------
    *args : tuple
        As for ``EncoderASR``.
    folder : str or path-like, optional
        Where the languages are; ``from_hparams`` sets it.
    window_s : float
        Length of a window in seconds.
    context_s : float
        Least distance of a kept frame from a cut, in seconds. A window costs
        ``window_s / (window_s - 2 * context_s)`` times its share of the
        recording.
    **kwargs : dict
        As for ``EncoderASR``.

    Example
    -------
    >>> from functools import partial
    >>> from speechbrain.decoders import ctc_greedy_decode
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> from unispeech_sb.lobes.heads import FrameHead, FramePosteriors
    >>> backbone, head = Backbone.from_preset("tiny"), FrameHead(16, 4)
    >>> asr = LongFormASR(
    ...     {"encoder": FramePosteriors(backbone, head)},
    ...     {
    ...         "tokenizer": CTCTokenizer.from_tokens(["-", "|", "a", "b"], 0),
    ...         "decoding_function": partial(ctc_greedy_decode, blank_id=0),
    ...     },
    ...     window_s=0.5,
    ...     context_s=0.1,
    ... )
    >>> asr.transcribe_long(torch.randn(32000)).duration_s
    2.0
    >>> asr.use_beam_search(beam_size=10)
    >>> asr.use_hot_words(["abba"])
    >>> asr.languages
    []
    """

    tokenizer: CTCTokenizer
    files_method = "transcribe_files"
    load_audio = load_audio

    def __init__(
        self,
        *args: Any,
        folder: str | Path | None = None,
        window_s: float = 30.0,
        context_s: float = 0.75,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.folder = folder
        self.window_s, self.context_s = window_s, context_s
        known = functools.partial, PrefixBeamSearcher
        if not isinstance(self.decoding_function, known):
            raise ValueError(
                "decoding_function: expected !name:speechbrain.decoders."
                "ctc_greedy_decode with arguments, or !name:unispeech_sb."
                "decoding.PrefixBeamSearcher; got "
                f"{type(self.decoding_function).__name__}"
            )
        holders = [
            module
            for module in self.mods.encoder.modules()
            if isinstance(
                getattr(module, "feature_extractor", None), FeatureExtractor
            )
        ]
        if len(holders) != 1:
            raise ValueError(
                "encoder: expected a module with one Backbone; got "
                f"{len(holders)}"
            )
        self._windows = WindowEncoder(
            holders[0], self._encode, self.audio_normalizer, window_s, context_s
        )

    @classmethod
    def from_hparams(
        cls, source: str | Path, *args: Any, **kwargs: Any
    ) -> "LongFormASR":
        """Loads a pretrained folder, as ``CheckedFolder``; its languages too,
        for ``set_language``."""
        return super().from_hparams(source, *args, folder=source, **kwargs)

    def encode_batch(
        self, wavs: torch.Tensor, wav_lens: torch.Tensor
    ) -> torch.Tensor:
        """As ``EncoderASR``, in the ``precision`` of ``run_opts``."""
        with self.inference_ctx:
            return super().encode_batch(wavs, wav_lens)

    def transcribe_long(
        self,
        source: Source,
        batch_seconds: float = 30.0,
        on_progress: Callable[[float], object] | None = None,
    ) -> Transcript:
        """Transcribes a recording of any length.

        Arguments
        ---------
        source : str or path-like or torch.Tensor
            A file that ``read_audio`` reads, or a waveform at the model's rate,
            [N].
        batch_seconds : float
            Most seconds of windows that go through the model together, one
            at least. More is faster on a GPU, not on a CPU.
        on_progress : callable, optional
            Called with the seconds that each window adds.

        Returns
        -------
        Transcript
            Text, words and length.

        Raises
        ------
        AudioError
            When the recording cannot be used.
        """
        return self._decode_file(
            source, self._decoder, batch_seconds, on_progress
        )

    def align_file(
        self,
        source: Source,
        text: str,
        skip_unknown: bool = False,
        batch_seconds: float = 30.0,
        on_progress: Callable[[float], object] | None = None,
    ) -> Alignment:
        """Finds when each word of a known text is spoken.

        Arguments
        ---------
        source : str or path-like or torch.Tensor
            As for ``transcribe_long``.
        text : str
            What is spoken, spelt in any way: see ``ForcedAligner``.
        skip_unknown : bool
            Words that the model cannot spell take what is between their
            neighbours; they are refused otherwise.
        batch_seconds : float
            As for ``transcribe_long``.
        on_progress : callable, optional
            As for ``transcribe_long``.

        Returns
        -------
        Alignment
            Words, letters and lines with their times.

        Raises
        ------
        AudioError
            When the recording cannot be used, or cannot hold the text, or the
            model cannot spell it.

        Example
        -------
        >>> from unispeech_sb import load
        >>> load("asr").align_file("talk.wav", "Hello!")  # doctest: +SKIP
        """
        aligner = functools.partial(self._aligner, text, skip_unknown)
        return self._decode_file(source, aligner, batch_seconds, on_progress)

    def transcribe_stream(
        self,
        source: Source | Iterable[torch.Tensor],
        on_partial: Callable[[str], object] | None = None,
    ) -> Iterator[Word]:
        """Transcribes a recording of any length, word by word, also while it
        goes on.

        Samples that come go through the model in windows of 15 s (``window_s``
        if that is less), each of which has half of the one before it and gives
        the words up to ``context_s`` before its end. What a model normalises
        over time is normalised by statistics of all that has come up to the
        window's end: the first seconds of a recording much louder than the rest
        count more than in ``transcribe_long``. Up to 15 s give the words of
        ``transcribe_long``, at the end. How the samples are cut into blocks
        changes no word; memory does not grow, and a second costs the same after
        an hour as at the beginning.

        Arguments
        ---------
        source : str or path-like or torch.Tensor or iterable of torch.Tensor
            A recording as for ``transcribe_long``, or its samples as they come,
            at the model's rate, [N] each.
        on_partial : callable, optional
            Called after each window with the text that is not final yet: the
            word, or with beam search the words, that the next windows may
            change. Of samples that come, after each block, with all words that
            are not final.

        Yields
        ------
        Word
            The next word, as soon as a window has shown where it ends.

        Raises
        ------
        AudioError
            When the recording cannot be used.

        Example
        -------
        >>> from unispeech_sb import load
        >>> blocks = iter([torch.zeros(8000), torch.randn(8000)])
        >>> words = load("asr").transcribe_stream(blocks)  # doctest: +SKIP
        """
        decoder = self._decoder()
        if is_stream(source):
            yield from self._transcribe_live(source, decoder, on_partial)
            return
        recording = as_source(source)
        for log_probs in self.iter_log_probs(recording, self.window_s):
            yield from decoder.push(log_probs)
            if on_partial is not None:
                on_partial(decoder.join(decoder.partial()))
        yield from decoder.finish()

    def _transcribe_live(self, blocks, decoder, on_partial):
        """Yields the words of samples that come."""
        for log_probs, is_final in self._windows.encode_live(blocks):
            if is_final:
                yield from decoder.push(log_probs)
            elif on_partial is not None:
                fork = decoder.fork()
                words = fork.push(log_probs)
                on_partial(fork.join([*words, *fork.partial()]))
        yield from decoder.finish()

    def log_probs(
        self, source: Source, batch_seconds: float = 30.0
    ) -> torch.Tensor:
        """Computes the log-posteriors of a whole recording.

        Arguments
        ---------
        source : str or path-like or torch.Tensor
            As for ``transcribe_long``.
        batch_seconds : float
            As for ``transcribe_long``.

        Returns
        -------
        torch.Tensor
            Log-posteriors, [T, V], on the CPU.
        """
        return torch.cat(list(self.iter_log_probs(source, batch_seconds)))

    def iter_log_probs(
        self, source: Source, batch_seconds: float = 30.0
    ) -> Iterator[torch.Tensor]:
        """Yields the log-posteriors of a recording, window by window.

        Arguments
        ---------
        source : str or path-like or torch.Tensor
            As for ``transcribe_long``.
        batch_seconds : float
            As for ``transcribe_long``.

        Yields
        ------
        torch.Tensor
            Those of the next frames, [T, V], on the CPU. All together are
            one row for each frame of the recording.
        """
        check_batch_seconds(batch_seconds)
        chunks = ahead(self._windows.cut(as_source(source)), self.workers)
        for _, log_probs in self._windows.encode_all(chunks, batch_seconds):
            if isinstance(log_probs, AudioError):
                raise log_probs
            yield log_probs

    def transcribe_files(
        self,
        paths: Iterable[str | Path],
        batch_seconds: float = 30.0,
        on_progress: Callable[[float], object] | None = None,
    ) -> Iterator[tuple[str | Path, Transcript | AudioError]]:
        """Transcribes many files, several at a time.

        Files of similar length that need no windows go through the model
        together, and so do the windows of long ones. A file gives the same
        transcript alone and in any batch (not under fairseq's ``mask_rule``,
        see ``Backbone``).

        Arguments
        ---------
        paths : iterable of str or path-like
            Files that ``read_audio`` reads.
        batch_seconds : float
            Most seconds of audio in a batch, padding included, or one
            window.
        on_progress : callable, optional
            Called with the seconds that each batch or window adds.

        Yields
        ------
        path : str or path-like
            As given; the shortest first, but for those that cannot be used.
        result : Transcript or AudioError
            The transcript, or why the file cannot be used.
        """
        return self._decode_files(
            paths, lambda path: self._decoder(), batch_seconds, on_progress
        )

    def align_files(
        self,
        texts: Mapping[str | Path, str],
        batch_seconds: float = 30.0,
        on_progress: Callable[[float], object] | None = None,
        skip_unknown: bool = False,
    ) -> Iterator[tuple[str | Path, Alignment | AudioError]]:
        """Aligns many files with their texts, several at a time.

        A file gives the same alone and in any batch, as in
        ``transcribe_files``.

        Arguments
        ---------
        texts : dict
            Path -> text, as for ``align_file``.
        batch_seconds : float
            As for ``transcribe_files``.
        on_progress : callable, optional
            As for ``transcribe_files``.
        skip_unknown : bool
            As for ``align_file``.

        Yields
        ------
        path : str or path-like
            As given; those that cannot be spelt first, then the shortest.
        result : Alignment or AudioError
            The alignment, or why there is none.
        """

        def aligner(path):
            return self._aligner(texts[path], skip_unknown)

        spelt = []
        for path in texts:
            found = attempt(path, aligner, path)
            if isinstance(found, AudioError):
                yield path, found
            else:
                spelt.append(path)
        yield from self._decode_files(
            spelt, aligner, batch_seconds, on_progress
        )

    @property
    def exportable(self) -> FramePosteriors:
        """Waveforms to log-posteriors."""
        return expect_exportable(self.mods.encoder, FramePosteriors)

    @property
    def decodes_greedily(self) -> bool:
        """Whether no beam search is in use."""
        return isinstance(self.decoding_function, functools.partial)

    @property
    def languages(self) -> list[str]:
        """Languages that ``set_language`` takes, in alphabetical order."""
        return [] if self.folder is None else folder_languages(self.folder)

    def use_beam_search(self, **options: Any) -> None:
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

    def use_language_model(
        self, path: str | Path | None, **options: Any
    ) -> None:
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

    def use_hot_words(self, words: Iterable[str], **options: Any) -> None:
        """Decodes by beam search that prefers some words from now on.

        Arguments
        ---------
        words : iterable of str
            Words or phrases; none to prefer none again.
        **options : dict
            Arguments of ``HotWords``, such as ``weight``.
        """
        hot_words = HotWords(words, **options)
        self.use_beam_search(hot_words=hot_words if hot_words.words else None)

    def set_language(self, lang: str) -> None:
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
        self.use_engine(self.engine, self.engine_precision)
        if decoding is not None:
            self._decode_by(*decoding)

    def _decode_file(self, source, make_decoder, batch_seconds, on_progress):
        """Result of a recording of any length."""
        source = as_source(source)
        check_batch_seconds(batch_seconds)
        with naming(source_name(source)):
            decoder = make_decoder()
            chunks = ahead(self._windows.cut(source), self.workers)
            rows = self._windows.encode_all(chunks, batch_seconds)
            return self._decoded(rows, decoder, on_progress)

    def _decode_files(self, paths, decoder_of, batch_seconds, on_progress):
        """Results of many files, of a decoder for each."""
        check_batch_seconds(batch_seconds)
        options = batch_seconds, on_progress
        return run_files(
            paths,
            self._windows.read,
            lambda pairs: self._decode_short(pairs, decoder_of),
            lambda long: self._decode_long(long, decoder_of, *options),
            min(self.window_s, batch_seconds),
            *options,
            Reading(self._windows.seconds, self.workers),
        )

    def _decode_short(self, pairs, decoder_of):
        """Results of whole recordings that are one batch."""
        rows = self._windows.encode_whole([wav for _, wav in pairs])
        for (path, wav), row in zip(pairs, rows, strict=True):
            decoder, seconds = decoder_of(path), self._windows.seconds(wav)
            words = decoder.push(row)
            yield attempt(path, _finished, decoder, words, seconds)

    def _decode_long(self, paths, decoder_of, batch_seconds, on_progress):
        """Results or errors of files whose windows go through together."""
        errors = {}

        def chunks():
            for path in paths:
                try:
                    yield from self._windows.cut(path)
                except FILE_ERRORS as error:
                    errors[path] = error_of(path, error)

        ready = ahead(chunks(), self.workers)
        rows = self._windows.encode_all(ready, batch_seconds)
        for (_, path), own in itertools.groupby(rows, _recording):
            options = own, decoder_of(path), on_progress
            result = attempt(path, self._decoded, *options)
            if isinstance(result, AudioError):
                errors[path] = result
            elif result is not None:
                yield path, result
        yield from errors.items()

    def _decoded(self, rows, decoder, on_progress):
        """Result of chunks; None where the last ones are missing."""
        words = []
        for chunk, log_probs in rows:
            if isinstance(log_probs, AudioError):
                raise log_probs
            words += decoder.push(log_probs)
            last = chunk
            if on_progress is not None:
                on_progress(len(log_probs) * decoder.frame_s)
        if not last.is_last:
            return None
        seconds = last.statistics.num_samples / self._windows.sample_rate
        return _finished(decoder, words, seconds)

    def _encode(self, wavs, wav_lens):
        """Log-posteriors of a batch, [B, T, V]."""
        with torch.no_grad():
            return self.encode_batch(wavs, wav_lens)

    def _decoder(self):
        """A decoder of words for this model's tokenizer and frames."""
        frame_s = self._windows.frame_s
        if self.decodes_greedily:
            return WordDecoder(self.tokenizer, frame_s)
        return BeamWordDecoder(self.decoding_function.search, frame_s)

    def _aligner(self, text, skip_unknown):
        """An aligner of a text for this model's tokenizer and frames."""
        return ForcedAligner(
            self.tokenizer, self._windows.frame_s, text, skip_unknown
        )

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


def _finished(decoder, words, seconds):
    """The result of a decoder that has given some words already."""
    if isinstance(decoder, ForcedAligner):
        return decoder.finish(seconds)
    words = [*words, *decoder.finish()]
    return decoder.mapping.transcript(words, seconds)


def _recording(row):
    """The statistics of the recording of a row's chunk, and its name."""
    return row[0].statistics, row[0].source


def folder_languages(folder: str | Path) -> list[str]:
    """Languages of a folder with an adapter file and a vocabulary, sorted."""
    path = Path(folder) / TEXTS_FOLDER / _VOCABULARY
    if not path.is_file():
        return []
    vocabulary = read_json(path)
    return [
        lang
        for lang in adapter_languages(folder)
        if isinstance(vocabulary.get(lang), dict)
    ]


def language_tokenizer(
    folder: str | Path, lang: str, tokenizer: CTCTokenizer
) -> CTCTokenizer:
    """The tokenizer of a language, with the blank of the given one."""
    languages = folder_languages(folder)
    if lang not in languages:
        raise ValueError(
            f"{folder}: expected one of the languages "
            f"{', '.join(languages) or '(none there)'}; got {lang!r}"
        )
    size = _num_outputs(folder, lang)
    texts = Path(folder) / TEXTS_FOLDER
    tokens = read_tokens(texts, size, lang)
    assert tokens is not None  # the language is in a vocabulary
    index, blank = tokenizer.blank_index, tokenizer.blank_label
    if tokens[index : index + 1] != [blank]:
        raise ValueError(
            f"{texts / _VOCABULARY}: expected {blank!r}, the blank, at index "
            f"{index} of {lang!r}; got {tokens[index : index + 1]}"
        )
    files = {
        path.name: path.read_text(encoding="utf-8")
        for path in texts.glob("[!.]*.json")
    }
    return CTCTokenizer.from_huggingface(files, tokens, index)


def _num_outputs(folder, lang):
    """Size of the classifier in a language's file."""
    paths = [Path(folder) / f"adapter.{lang}{suffix}" for suffix in SUFFIXES]
    path = next(path for path in paths if path.is_file())
    weight = read_tensors(path).get(CLASSIFIER + "weight")
    if weight is None or weight.dim() != 2:
        raise ValueError(f"{path}: expected {CLASSIFIER}weight, [V, D]")
    return len(weight)
