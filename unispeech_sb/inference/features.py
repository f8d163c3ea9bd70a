"""Hidden states of the backbone of any folder, for many files and long ones."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from speechbrain.dataio.preprocess import AudioNormalizer

from unispeech_sb.checkpoints.interfaces import INTERFACES
from unispeech_sb.dataio.audio import AudioError, attempt, naming
from unispeech_sb.inference.audio_blocks import (
    Reading,
    Source,
    ahead,
    as_source,
    check_batch_seconds,
    global_norm,
    read_blocks,
    run_files,
    source_name,
)
from unispeech_sb.inference.loading import CheckedFolder
from unispeech_sb.inference.sliding_window import cut_windows
from unispeech_sb.inference.window_encoder import WindowEncoder
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.nnet.frontend import normalize_wavs
from unispeech_sb.nnet.lengths import absolute_lengths

SAMPLE_RATE = 16000


class HiddenStates(NamedTuple):
    """Hidden states of a recording.

    Arguments
    ---------
    layers : tuple of int
        Numbers of the layers: 0 is the encoder's input, 1 the output of the
        first block.
    states : torch.Tensor
        Their states, float32, [len(layers), T, D], on the CPU.
    frame_s : float
        Seconds from one frame to the next.
    duration_s : float
        Length of the recording in seconds.

    Example
    -------
    >>> HiddenStates((9,), torch.zeros(1, 49, 768), 0.02, 1.0).states.shape
    torch.Size([1, 49, 768])
    """

    layers: tuple[int, ...]
    states: torch.Tensor
    frame_s: float
    duration_s: float

    @property
    def num_frames(self) -> int:
        """Frames T."""
        return self.states.shape[1]

    @property
    def blocks(self) -> list[torch.Tensor]:
        """The states as the only block of a ``StateStream``."""
        return [self.states]

    def __repr__(self) -> str:
        """What a session shows: no numbers, of which there are many."""
        return (
            f"HiddenStates(layers {[*self.layers]}, {[*self.states.shape]}, "
            f"{self.frame_s:g} s a frame, {self.duration_s:.3g} s)"
        )


class StateStream(NamedTuple):
    """Hidden states of a recording as they are computed.

    Arguments
    ---------
    layers : tuple of int
        As for ``HiddenStates``.
    num_frames : int
        Frames T of the recording.
    frame_s : float
        Seconds from one frame to the next.
    duration_s : float
        Length of the recording in seconds.
    blocks : iterable of torch.Tensor
        States of the next frames, float32, [len(layers), t, D], on the CPU;
        an ``AudioError`` where the recording cannot be used.

    Example
    -------
    >>> blocks = iter([torch.zeros(1, 40, 8), torch.zeros(1, 9, 8)])
    >>> stream = StateStream((9,), 49, 0.02, 1.0, blocks)
    >>> sum(block.shape[1] for block in stream.blocks)
    49
    """

    layers: tuple[int, ...]
    num_frames: int
    frame_s: float
    duration_s: float
    blocks: Iterable[torch.Tensor]


class StateEncoder:
    """Waveforms to the states of some layers; without ``layers`` to features,
    as the backbone itself gives them."""

    def __init__(
        self, backbone: Backbone, layers: Sequence[int] | None = None
    ) -> None:
        self.backbone, self.layers = backbone, layers

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what ``compute`` gives."""
        names = ["features"]
        if self.layers is not None:
            names = [f"layer{number}" for number in self.layers]
        return *names, "num_frames"

    def compute(
        self, wavs: torch.Tensor, wav_lens: torch.Tensor | None = None
    ) -> tuple[torch.Tensor | None, ...]:
        """States, [B, T, D] each, and the valid frames of each row, [B], None
        without lengths."""
        layers, last_state = self.layers, None
        if layers is None:
            layers, last_state = [self.backbone.num_states - 1], "normed"
        states = [
            *self.backbone.iter_states(wavs, wav_lens, last_state, layers)
        ]
        if wav_lens is None:
            return *states, None
        shares = self.backbone.frame_lens(wavs.shape[1], wav_lens)
        return *states, absolute_lengths(shares, states[0].shape[1])


class SpeechFeatures(CheckedFolder):
    """Extracts hidden states.

    Loads with ``from_hparams`` any folder that has one ``Backbone``. What a
    folder says of ``last_state`` and ``output_norm`` holds, as for
    ``Backbone.iter_states``. A recording longer than ``window_s`` goes through
    the blocks in windows, one by one, in a time that grows with its length.
    Convolutions, their norms and the positions see the whole recording; states
    differ from its own by what attention does not see. ``output_norm`` stays
    one of each window. Another engine runs recordings up to ``window_s``;
    windows are torch's.

    Arguments
    ---------
    *args : tuple
        As for ``Pretrained``.
    window_s : float
        Length of a window in seconds.
    context_s : float
        Least distance of a kept frame from a cut, in seconds.
    **kwargs : dict
        As for ``Pretrained``.

    Example
    -------
    >>> extractor = SpeechFeatures(
    ...     {"encoder": Backbone.from_preset("tiny")}, {}
    ... )
    >>> extractor(torch.randn(16000), layers=[0, 2]).states.shape
    torch.Size([2, 49, 16])
    """

    files_method = "extract_files"

    def __init__(
        self,
        *args: Any,
        window_s: float = 60.0,
        context_s: float = 0.75,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        found = [m for m in self.mods.modules() if isinstance(m, Backbone)]
        if len(found) != 1:
            raise ValueError(
                f"modules: expected one Backbone; got {len(found)}"
            )
        self.backbone = found[0]
        self.window_s, self.context_s = window_s, context_s
        self.audio_normalizer = AudioNormalizer(SAMPLE_RATE)
        self._compute_by(None)

    @classmethod
    def from_hparams(
        cls, source: str | Path, *args: Any, **kwargs: Any
    ) -> "SpeechFeatures":
        """Loads a pretrained folder of any kind, as ``CheckedFolder``."""
        return super().from_hparams(
            source, *args, other_kinds=tuple(INTERFACES), **kwargs
        )

    @property
    def num_layers(self) -> int:
        """Number of blocks, and of the last layer."""
        return self.backbone.config.num_hidden_layers

    def extract(
        self,
        source: Source,
        layers: Sequence[int] | None = None,
        batch_seconds: float = 60.0,
        on_progress: Callable[[float], object] | None = None,
    ) -> HiddenStates:
        """Computes hidden states of a recording; all of them are in memory.

        Arguments
        ---------
        source : str or path-like or torch.Tensor
            A file that ``read_audio`` reads, or a waveform at 16 kHz, [N].
        layers : list of int, optional
            From 0, the encoder's input, to ``num_layers``; -1 is the last one,
            as when omitted.
        batch_seconds : float
            Of no effect: windows go through the model one by one.
        on_progress : callable, optional
            Called with the seconds that each window adds.

        Returns
        -------
        HiddenStates
            Of these layers, in this order.

        Raises
        ------
        AudioError
            When the recording cannot be used.
        ValueError
            When there is no such layer.
        """
        check_batch_seconds(batch_seconds)
        found = self.stream(source, layers, on_progress)
        states = torch.cat([*found.blocks], 1)
        return HiddenStates(
            found.layers, states, found.frame_s, found.duration_s
        )

    def stream(
        self,
        source: Source,
        layers: Sequence[int] | None = None,
        on_progress: Callable[[float], object] | None = None,
    ) -> StateStream:
        """Computes hidden states window by window, as they are asked for.

        A recording of any length needs the memory of a window.

        Arguments
        ---------
        source : str or path-like or torch.Tensor
            As for ``extract``.
        layers : list of int, optional
            As for ``extract``.
        on_progress : callable, optional
            Called with the seconds that each window adds.

        Returns
        -------
        StateStream
            Of these layers, in this order.

        Raises
        ------
        AudioError
            When the recording cannot be used.
        ValueError
            When there is no such layer.
        """
        source, numbers = as_source(source), self.checked_layers(layers)
        windows = self._windows(numbers)
        with naming(source_name(source)):
            statistics = windows.statistics(source)
        return StateStream(
            numbers,
            windows.num_frames(statistics.num_samples),
            windows.frame_s,
            statistics.num_samples / SAMPLE_RATE,
            self._blocks(source, numbers, windows, statistics, on_progress),
        )

    def _blocks(self, source, numbers, windows, statistics, on_progress):
        """Yields the states of the next frames, [L, t, D]."""
        with naming(source_name(source)):
            plan = windows.plan(statistics.num_samples)
            if len(plan) == 1:
                (row,) = windows.encode_whole([windows.read(source)])
                found = [torch.stack(row.chunk(len(numbers), -1))]
            else:
                found = self._cut_blocks(
                    source, numbers, windows, statistics, plan
                )
            for states in found:
                yield states
                if on_progress is not None:
                    on_progress(states.shape[1] * windows.frame_s)

    @torch.no_grad()
    def _cut_blocks(self, source, numbers, windows, statistics, plan):
        """Yields the states that each window of a recording gives, [L, t, D].

        Each frame goes through the convolutions once: what a window shares
        with the next is kept, and so are samples that frames share.
        """
        total, reach = plan[-1].last, self.backbone.encoder.pos_conv_embed.reach
        ends = [windows.num_frames(window.stop) for window in plan]
        stops = [min(end + reach, total) for end in ends]
        new = [
            windows.samples_of(first, last)
            for first, last in zip([0, *stops], stops)
            if first < last
        ]
        blocks = read_blocks(source, self.audio_normalizer)
        pieces = ahead(cut_windows(blocks, new), self.workers)
        feats, begin, known = [], 0, 0
        for window, end, stop in zip(plan, ends, stops):
            first = max(0, window.offset - reach)
            if known < stop:
                _, wav = next(pieces)
                feats, known = [*feats, self._input(wav, statistics)], stop
            feats = [torch.cat(feats, 1)[:, first - begin :]]
            begin = first
            seen = feats[0][:, : stop - begin]
            sides = window.offset - begin, stop - end
            yield self._window_states(seen, sides, numbers, window.kept)

    def _input(self, wav, statistics):
        """The encoder's input for a part of a recording, [1, t, D]."""
        backbone = self.backbone
        with self.inference_ctx, global_norm(backbone, [statistics]) as prepare:
            (wav,) = prepare([wav])
            feats = backbone.feature_extractor(wav[None].to(self.device))
            return backbone.feature_projection(feats)[0]

    def _window_states(self, feats, sides, numbers, kept):
        """States that a window gives, float32, on the CPU, [L, t, D]."""
        wanted, taken = sorted(set(numbers)), {}
        raw = self.backbone.last_state == "raw"
        with self.inference_ctx:
            states = self.backbone.encoder(
                feats, raw_last=raw, wanted=wanted, sides=sides
            )
            for number, (state, _) in zip(wanted, states, strict=True):
                if self.backbone.output_norm:
                    state = normalize_wavs(state.flatten(1)).view_as(state)
                taken[number] = state[0, kept].float().cpu()
        return torch.stack([taken[number] for number in numbers])

    def extract_files(
        self,
        paths: Iterable[str | Path],
        layers: Sequence[int] | None = None,
        batch_seconds: float = 60.0,
        on_progress: Callable[[float], object] | None = None,
        streams: bool = False,
    ) -> Iterator[tuple[str | Path, HiddenStates | StateStream | AudioError]]:
        """Computes hidden states of many files, several at a time.

        A file gives the same alone and in any batch (not under fairseq's
        ``mask_rule``).

        Arguments
        ---------
        paths : iterable of str or path-like
            Files that ``read_audio`` reads.
        layers : list of int, optional
            As for ``extract``.
        batch_seconds : float
            Most seconds of audio in a batch, padding included, one file or
            window at least.
        on_progress : callable, optional
            Called with the seconds that each batch or window adds.
        streams : bool
            Give a ``StateStream`` of each file that needs windows, to be used
            up before the next result is asked for.

        Yields
        ------
        path : str or path-like
            As given; the shortest first, but for those that cannot be used.
        result : HiddenStates or StateStream or AudioError
            The states, or why the file cannot be used.
        """
        numbers = self.checked_layers(layers)
        windows = self._windows(numbers)

        def run_batch(pairs):
            wavs = [wav for _, wav in pairs]
            for wav, row in zip(wavs, windows.encode_whole(wavs)):
                seconds = len(wav) / SAMPLE_RATE
                yield self._split(row, numbers, windows, seconds)

        method = self.stream if streams else self.extract
        run = partial(method, layers=numbers, on_progress=on_progress)

        def run_long(long):
            for path in long:
                yield path, attempt(path, run, path)

        return run_files(
            paths,
            windows.read,
            run_batch,
            run_long,
            min(self.window_s, batch_seconds),
            batch_seconds,
            on_progress,
            Reading(windows.seconds, self.workers),
        )

    def forward(
        self, wavs: torch.Tensor, wav_lens: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Computes all hidden states of a batch.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms at 16 kHz, [B, N].
        wav_lens : torch.Tensor, optional
            Valid share of each, in (0, 1], [B].

        Returns
        -------
        torch.Tensor
            The encoder's input first, [L+1, B, T, D].
        """
        numbers = range(self.num_layers + 1)
        found = self._encode(numbers, wavs, wav_lens)
        return torch.stack(found.chunk(len(numbers), -1))

    @property
    def exportable(self) -> StateEncoder:
        """Waveforms to features."""
        return StateEncoder(self.backbone)

    def _compute_by(self, runner):
        """Makes what runs layers anew when they are next asked for."""
        self._runner = runner
        self._encoders: dict[tuple[int, ...], StateEncoder] = {}

    def _encoder(self, layers):
        """What computes the states of some layers."""
        if layers not in self._encoders:
            encoder = self._encoders[layers] = StateEncoder(
                self.backbone, layers
            )
            if self._runner is not None:
                vars(encoder)["compute"] = self._runner(encoder)
        return self._encoders[layers]

    def checked_layers(
        self, layers: Sequence[int] | str | None = None
    ) -> tuple[int, ...]:
        """Numbers of layers that there are; "all", or the last when omitted;
        negative ones from behind. A ``ValueError`` for others."""
        count = self.num_layers + 1
        given: list[Any] = [count - 1] if layers is None else [*layers]
        if layers == "all":
            given = [*range(count)]
        if not given or any(n not in range(-count, count) for n in given):
            raise ValueError(
                f"layers: expected numbers from 0 to {count - 1}, or from -1, "
                f"the last one, to {-count}; got "
                f"{', '.join(map(str, given)) or 'none'}"
            )
        numbers = tuple(number % count for number in given)
        if len({*numbers}) < len({*given}):
            raise ValueError(
                "layers: expected different ones; got "
                + " and ".join(map(str, given))
            )
        return numbers

    def _windows(self, numbers):
        """What runs windows, and gives the states side by side."""
        self._encoder(tuple(sorted(set(numbers))))  # its errors are no file's
        return WindowEncoder(
            self.backbone,
            partial(self._encode, numbers),
            self.audio_normalizer,
            self.window_s,
            self.context_s,
        )

    def _encode(self, numbers, wavs, wav_lens):
        """States of a batch side by side, [B, T, L D]."""
        wavs, wanted = wavs.to(self.device), tuple(sorted(set(numbers)))
        shares = None if wav_lens is None else wav_lens.to(self.device)
        encoder = self._encoder(wanted)
        with torch.no_grad(), self.inference_ctx:
            *states, _ = encoder.compute(wavs, shares)
        kept = dict(zip(wanted, states, strict=True))
        return torch.cat([kept[number] for number in numbers], -1)

    def _split(self, row, numbers, windows, seconds):
        """The result for states side by side, [T, L D]."""
        states = torch.stack(row.chunk(len(numbers), -1))
        return HiddenStates(numbers, states, windows.frame_s, seconds)
