"""The backbone of UniSpeech and UniSpeech-SAT: waveforms to features.

One class for all sizes (Wang et al. 2021, section 3; Chen et al. 2021, section
3) and for the families that share it, wav2vec 2.0, HuBERT and WavLM:
convolutional features, span masks, transformer.
"""

import inspect
import math
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from unispeech_sb.checkpoints.files import load_strict
from unispeech_sb.checkpoints.options import OPTIONS, options_of
from unispeech_sb.checkpoints.pretrained_folder import family_of
from unispeech_sb.checkpoints.source import read_backbone
from unispeech_sb.lobes.lobe import Lobe, constructor_arguments, without_weights
from unispeech_sb.nnet.frontend import (
    FeatureExtractor,
    FeatureProjection,
    normalize_wavs,
)
from unispeech_sb.nnet.lengths import (
    Lengths,
    absolute_lengths,
    chunk_lengths,
    conv_lengths,
    is_exported,
    length_mask,
    sample_lengths,
)
from unispeech_sb.nnet.masking import span_mask
from unispeech_sb.nnet.transformer import (
    Attention,
    AttentionAdapter,
    Encoder,
    EncoderLayer,
    FeedForward,
    PositionalConv,
    draw_weights,
    keep_in_graph,
)

_CONTEXT_S = 1.5
"""On both sides of a window, in seconds."""

_LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "normalize_wav": True,
}

_BASE = {"normalize_wav": False}

PRESETS: dict[str, dict[str, Any]] = {
    "unispeech_large": {**_LARGE, "conv_bias": True},
    "unispeech_sat_base": _BASE,
    "unispeech_sat_base_plus": _BASE,
    "unispeech_sat_large": _LARGE,
    "wavlm_base_plus": {**_BASE, "num_buckets": 320},
    "wavlm_large": {**_LARGE, "num_buckets": 320},
    # For training from scratch on a CPU: minutes, not days.
    "small": {
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 512,
        # Fewer layers with longer strides, of 20 ms in all: at the published
        # ones' rates the first two would take most of the time.
        "conv_dim": [32, 64, 128, 128, 128],
        "conv_stride": [10, 4, 2, 2, 2],
        "conv_kernel": [20, 8, 4, 4, 4],
        "feat_extract_norm": "layer",
        "do_stable_layer_norm": True,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
        "layerdrop": 0.0,
        "normalize_wav": True,
    },
    # For tests and examples: milliseconds.
    "tiny": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "conv_dim": [8, 8, 8, 8, 8, 8, 8],
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 2,
        "layerdrop": 0.0,
        "normalize_wav": True,
    },
}
"""Sizes by name, each as its differences from ``Backbone``'s defaults: the
published models, and small ones for tests and for training from scratch."""


class BackboneOutput(NamedTuple):
    """Everything that one pass computes.

    Arguments
    ---------
    last_hidden_state : torch.Tensor
        Features, [B, T, D].
    extract_features : torch.Tensor
        Convolutional features after LayerNorm, [B, T, C].
    lengths : torch.Tensor or None
        Valid frames of each row, [B]; None when there is no padding.
    hidden_states : tuple of torch.Tensor
        The encoder's input and the output of each block, L+1 of [B, T, D].
        Empty unless asked for.
    attentions : tuple of torch.Tensor
        Attention maps, L of [B, H, T, T]. Empty unless asked for.

    Example
    -------
    >>> out = Backbone.from_preset("tiny").encode(torch.randn(1, 800))
    >>> out.extract_features.shape
    torch.Size([1, 2, 8])
    """

    last_hidden_state: torch.Tensor
    extract_features: torch.Tensor
    lengths: torch.Tensor | None
    hidden_states: tuple[torch.Tensor, ...]
    attentions: tuple[torch.Tensor, ...]


class Backbone(Lobe):
    """Waveforms in, one feature vector every 20 ms out.

    Padding changes nothing: an utterance gives the same features alone and
    in any batch, as long as ``wav_lens`` is passed (not under fairseq's
    ``mask_rule``, which looks at the whole batch). Options that transformers'
    ``UniSpeechConfig`` has keep their names and defaults, except
    ``apply_spec_augment``, which SpeechBrain's lobes switch off.

    Arguments
    ---------
    hidden_size : int
        Model size D (Base 768, Large 1024).
    num_hidden_layers : int
        Number of blocks L (12, 24).
    num_attention_heads : int
        Number of heads H (12, 16).
    intermediate_size : int
        Inner size of the feed-forward layers (3072, 4096).
    hidden_act : str
        Activation of the blocks: gelu, gelu_new, relu or selu.
    hidden_dropout, activation_dropout, attention_dropout : float
        Dropout on sub-layers' outputs, inside feed-forward layers, on
        attention maps.
    feat_proj_dropout : float
        Dropout on the projected convolutional features.
    layerdrop : float
        Probability of skipping a block in training.
    initializer_range : float
        Standard deviation of the blocks' initial weights.
    layer_norm_eps : float
        Epsilon of the norms after the convolutions.
    feat_extract_norm : str
        ``group``: the first convolution is normalised over time (Base);
        ``layer``: all are, over channels (Large).
    feat_extract_activation : str
        Activation of the convolutions.
    conv_dim, conv_stride, conv_kernel : list of int
        Channels, strides and kernel sizes of the convolutions.
    conv_bias : bool
        Whether the convolutions have a bias.
    num_conv_pos_embeddings, num_conv_pos_embedding_groups : int
        Kernel size and groups of the positional convolution.
    pos_conv_weight_norm : bool
        Weight normalisation of the positional convolution.
    do_stable_layer_norm : bool
        Pre-norm blocks (Large) instead of post-norm ones (Base).
    adapter_attn_dim : int, optional
        Inner size of per-language adapters in the blocks, which have to be
        pre-norm; no adapters when omitted. See ``lobes.adapters``.
    feat_proj_layer_norm : bool
        Normalise the convolutional features; not in distilled HuBERT models.
    num_buckets, max_bucket_distance : int
        Relative positions of WavLM (320, 800), see ``Attention``; none where
        the first is omitted.
    apply_spec_augment : bool
        Mask spans in training, by the six options below.
    mask_time_prob, mask_feature_prob : float
        Share of frames, of channels, to mask; in [0, 1].
    mask_time_length, mask_feature_length : int
        Length of a span, in frames and in channels.
    mask_time_min_masks, mask_feature_min_masks : int
        Fewest spans of an utterance.
    normalize_wav : bool
        Give each waveform zero mean and unit variance first.
    normalize_eps : float
        Added to that variance: 1e-5 in the authors' code and SpeechBrain, 1e-7
        in transformers' feature extractor. A checkpoint brings its own.
    output_norm : bool
        Normalise the output of each utterance over time and channels.
    freeze : bool
        Train nothing; the module stays in evaluation mode.
    freeze_feature_extractor : bool
        Do not train the convolutions.
    output_all_hiddens : bool
        ``forward`` returns all hidden states.
    gradient_checkpointing : bool
        Recompute activations in the backward pass to save memory.
    last_state : str
        What all hidden states end with in a pre-norm model: ``normed``, the
        features (authors, s3prl, transformers 4), or ``raw``, the same before
        the final LayerNorm (transformers 5). Features are always normed.
    mask_rule : str
        Padding of a batch: under ``hf`` frames that see it are not valid;
        ``fairseq`` is as in the authors' code, where mostly one or two more
        are (see ``chunk_lengths``) and the group norm of Base models counts
        all padded frames.
    window_s : float, optional
        Longest stretch in seconds that attends to itself. Longer waveforms go
        through the blocks in windows of so many seconds, with 1.5 s of context
        on both sides, at a cost that grows with the length and not with its
        square. Convolutions, norms and positions see the whole; features
        differ from its own by what attention does not see. Nothing is cut
        when omitted, nor in a padded batch by ``mask_rule`` fairseq.

    Example
    -------
    >>> backbone = Backbone.from_preset("tiny", output_all_hiddens=True)
    >>> backbone(torch.randn(2, 1600), torch.tensor([1.0, 0.5])).shape
    torch.Size([3, 2, 4, 16])
    """

    # Of the options that the constructor sets by name, what others read
    last_state: str
    normalize_wav: bool
    normalize_eps: float
    family: str | None = None  # of its source, where that says one

    def __init__(
        self,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        hidden_act: str = "gelu",
        hidden_dropout: float = 0.1,
        activation_dropout: float = 0.1,
        attention_dropout: float = 0.1,
        feat_proj_dropout: float = 0.0,
        layerdrop: float = 0.1,
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-5,
        feat_extract_norm: str = "group",
        feat_extract_activation: str = "gelu",
        conv_dim: Sequence[int] = (512, 512, 512, 512, 512, 512, 512),
        conv_stride: Sequence[int] = (5, 2, 2, 2, 2, 2, 2),
        conv_kernel: Sequence[int] = (10, 3, 3, 3, 3, 2, 2),
        conv_bias: bool = False,
        num_conv_pos_embeddings: int = 128,
        num_conv_pos_embedding_groups: int = 16,
        pos_conv_weight_norm: bool = True,
        do_stable_layer_norm: bool = False,
        adapter_attn_dim: int | None = None,
        feat_proj_layer_norm: bool = True,
        num_buckets: int | None = None,
        max_bucket_distance: int = 800,
        apply_spec_augment: bool = False,
        mask_time_prob: float = 0.05,
        mask_time_length: int = 10,
        mask_time_min_masks: int = 2,
        mask_feature_prob: float = 0.0,
        mask_feature_length: int = 10,
        mask_feature_min_masks: int = 0,
        normalize_wav: bool = False,
        normalize_eps: float = 1e-5,
        output_norm: bool = False,
        freeze: bool = False,
        freeze_feature_extractor: bool = False,
        output_all_hiddens: bool = False,
        gradient_checkpointing: bool = False,
        last_state: str = "normed",
        mask_rule: str = "hf",
        window_s: float | None = None,
    ) -> None:
        super().__init__(constructor_arguments(locals()))
        names = list(self.config)
        for name in names[names.index("apply_spec_augment") :]:
            setattr(self, name, self.config[name])  # those that steer a pass
            _check_choice(name, self.config[name])
        self.dim, self.num_states = hidden_size, num_hidden_layers + 1
        self.feature_extractor = _build_extractor(self.config)
        self.feature_projection = FeatureProjection(
            conv_dim[-1], hidden_size, layer_norm_eps, feat_proj_dropout,
            feat_proj_layer_norm,
        )  # fmt: skip
        self.masked_spec_embed = nn.Parameter(torch.rand(hidden_size))
        self.encoder = _build_encoder(self.config)
        self.freeze = freeze  # now that there are parameters

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> "Backbone":
        """Builds a backbone by name: the one dial of a recipe.

        Arguments
        ---------
        name : str
            A name in ``PRESETS`` for random weights, or any source of
            ``from_pretrained``.
        **overrides
            Any option of ``Backbone``.

        Returns
        -------
        Backbone
            In training mode.

        Raises
        ------
        ValueError
            When there is no such preset or option.

        Example
        -------
        >>> Backbone.from_preset("tiny", num_hidden_layers=1).num_states
        2
        """
        if name in PRESETS:
            overrides = options_of(overrides, _options(cls))
            return cls(**{**PRESETS[name], **overrides})
        if "/" not in str(name) and not Path(name).exists():
            raise ValueError(
                f"model: expected a preset ({', '.join(PRESETS)}), a folder "
                f"or a hub name; got {name!r}"
            )
        return cls.from_pretrained(name, **overrides)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        save_path: str | None = None,
        output_norm: bool = False,
        freeze: bool = False,
        freeze_feature_extractor: bool = False,
        apply_spec_augment: bool = False,
        output_all_hiddens: bool = False,
        config: str | Path | None = None,
        **overrides: Any,
    ) -> "Backbone":
        """Loads a checkpoint, with the keywords of SpeechBrain's SSL lobes.

        Arguments
        ---------
        source : str or pathlib.Path
            A pretrained folder (with ``backbone.ckpt``), a Hugging Face
            folder of a class of UniSpeech, UniSpeech-SAT, wav2vec 2.0,
            HuBERT or WavLM, the name of one on the hub, a file of the
            authors' (fairseq, speaker verification, diarization), or a
            training checkpoint of SpeechBrain (``CKPT+...``) or a file in it.
        save_path : str, optional
            Where downloads are kept; the hub's own cache when omitted.
        output_norm : bool
            Normalise the output of each utterance over time and channels.
        freeze : bool
            Train nothing.
        freeze_feature_extractor : bool
            Do not train the convolutions.
        apply_spec_augment : bool
            Mask spans in training, as the checkpoint's options say.
        output_all_hiddens : bool
            ``forward`` returns all hidden states.
        config : str or pathlib.Path, optional
            Source of the model that a training began with, for a training
            checkpoint with tensors alone whose run has no ``hyperparams.yaml``.
        **overrides
            Any other option of ``Backbone``, such as ``layerdrop``, or
            ``normalize_wav``, which a Hugging Face folder without
            ``preprocessor_config.json`` lacks.

        Returns
        -------
        Backbone
            In training mode (in evaluation mode when frozen).

        Raises
        ------
        ValueError
            When the source is no checkpoint, is damaged or does not fit.

        Example
        -------
        >>> folder = getfixture("tmp_path")
        >>> Backbone.from_preset("tiny").save(folder / "backbone.ckpt")
        >>> Backbone.from_pretrained(folder, freeze=True).training
        False
        """
        overrides = options_of(overrides, _options(cls))
        told = {k: v for k, v in overrides.items() if k == "normalize_wav"}
        found, tensors, path = read_backbone(source, save_path, config, told)
        options = {name: found[name] for name in _options(cls) if name in found}
        options.update(
            overrides,
            output_norm=output_norm,
            freeze=freeze,
            freeze_feature_extractor=freeze_feature_extractor,
            apply_spec_augment=apply_spec_augment,
            output_all_hiddens=output_all_hiddens,
        )
        with without_weights(path):  # the file's tensors take their places
            backbone = cls(**options)
        load_strict(backbone, tensors, path, assign=True)
        backbone.family = found.get("family") or family_of(path.parent)
        return backbone

    def current_config(self) -> dict[str, Any]:
        """The arguments that build the backbone as it is now: some recipes
        keep the first blocks alone."""
        return {**self.config, "num_hidden_layers": len(self.encoder.layers)}

    @property
    def freeze(self) -> bool:
        """Whether nothing trains. Setting it freezes, or lets train all but
        feature extractors that ``freeze_feature_extractor`` freezes; the mode
        changes with the next ``train()``."""
        return self._freeze

    @freeze.setter
    def freeze(self, value: bool) -> None:
        """Freezes, or ends it."""
        self._freeze = value
        if "encoder" not in self._modules:
            return  # the constructor sets it again when all is there
        self.requires_grad_(not value)
        if self.freeze_feature_extractor:
            self.feature_extractor.requires_grad_(False)
        self.train(self.training)

    @property
    def model(self) -> "Backbone":
        """Itself: what SpeechBrain's lobes call their transformers model."""
        return self

    def freeze_model(self, model: nn.Module) -> None:
        """Freezes a module, as SpeechBrain's lobes do.

        Arguments
        ---------
        model : torch.nn.Module
            ``self.model`` or a part of it.
        """
        model.eval().requires_grad_(False)

    def extract_features(
        self, wav: torch.Tensor, wav_lens: torch.Tensor | None = None
    ) -> torch.Tensor:
        """As ``forward``: SpeechBrain's lobes have both.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms at 16 kHz, [B, N].
        wav_lens : torch.Tensor, optional
            Valid share of each waveform, in (0, 1], [B].

        Returns
        -------
        torch.Tensor
            Features, as ``forward`` gives them.
        """
        return self(wav, wav_lens)

    def forward(
        self, wav: torch.Tensor, wav_lens: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Extracts features.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms at 16 kHz, [B, N].
        wav_lens : torch.Tensor, optional
            Valid share of each waveform, in (0, 1], [B]. All of it when
            omitted.

        Returns
        -------
        torch.Tensor
            Features [B, T, D]; with ``output_all_hiddens`` all hidden
            states [L+1, B, T, D], the encoder's input first. Frames in the
            padding hold anything.

        Raises
        ------
        ValueError
            When a waveform is shorter than one frame, or the shapes are not
            as above.
        """
        if self.output_all_hiddens:
            return torch.stack(list(self.iter_states(wav, wav_lens)))
        last = [len(self.encoder.layers)]
        (state,) = self.iter_states(wav, wav_lens, "normed", last)
        return state

    def iter_states(
        self,
        wav: torch.Tensor,
        wav_lens: torch.Tensor | None = None,
        last_state: str | None = None,
        layers: Collection[int] | None = None,
    ) -> Iterator[torch.Tensor]:
        """Yields the hidden states one by one, as they are computed.

        ``LayerMix`` sums them on the way: without gradients only one is kept
        at a time.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms at 16 kHz, [B, N].
        wav_lens : torch.Tensor, optional
            Valid share of each waveform, in (0, 1], [B].
        last_state : str, optional
            Instead of the option of that name.
        layers : collection of int, optional
            Yield these states only, 0 for the encoder's input; no block above
            the last of them is computed. All when omitted.

        Yields
        ------
        torch.Tensor
            The encoder's input, then the output of each block, [B, T, D].

        Raises
        ------
        ValueError
            When there is no such layer, or as for ``forward``.

        Example
        -------
        >>> backbone = Backbone.from_preset("tiny")
        >>> (state,) = backbone.iter_states(torch.randn(1, 800), layers=[1])
        >>> state.shape
        torch.Size([1, 2, 16])
        """
        known = range(len(self.encoder.layers) + 1)
        if layers is not None and (not layers or set(layers) - set(known)):
            raise ValueError(
                f"layers: expected numbers from 0 to {known[-1]}; got "
                f"{[*layers]}"
            )
        last_state = last_state or self.last_state
        _check_choice("last_state", last_state)
        feats, normed, lengths = self._features(wav, wav_lens)
        raw = last_state == "raw"
        states = self._states(feats, lengths, False, raw, layers)
        del feats, normed  # those of an hour are a gigabyte
        for state, _ in states:
            if self.output_norm:
                counts = None if lengths is None else lengths * self.dim
                state = normalize_wavs(state.flatten(1), counts).view_as(state)
            yield state

    def encode(
        self,
        wav: torch.Tensor,
        wav_lens: torch.Tensor | None = None,
        mask_time_indices: torch.Tensor | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> BackboneOutput:
        """Extracts features and what leads to them.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms at 16 kHz, [B, N].
        wav_lens : torch.Tensor, optional
            Valid share of each waveform, in (0, 1], [B].
        mask_time_indices : torch.Tensor, optional
            Bool, True at frames to replace by the mask embedding, [B, T];
            in any mode, and instead of drawn ones.
        output_hidden_states : bool
            Keep all hidden states.
        output_attentions : bool
            Compute attention maps, which takes more memory.

        Returns
        -------
        BackboneOutput
            See there. ``output_norm`` does not apply to it.
        """
        feats, normed, lengths = self._features(
            wav, wav_lens, mask_time_indices
        )
        raw = self.last_state == "raw"
        last_only = not output_hidden_states and not output_attentions
        found = self._states(
            feats, lengths, output_attentions, raw,
            [len(self.encoder.layers)] if last_only else None,
        )  # fmt: skip
        states: list[torch.Tensor] = []
        maps = []
        for state, attention_map in found:
            states = [*states, state] if output_hidden_states else [state]
            maps.append(attention_map)
        last = self.encoder.final_norm(states[-1]) if raw else states[-1]
        return BackboneOutput(
            last_hidden_state=last,
            extract_features=normed,
            lengths=lengths,
            hidden_states=tuple(states) if output_hidden_states else (),
            attentions=tuple(maps[1:]) if output_attentions else (),
        )

    def output_lengths(self, lengths: Lengths) -> Lengths:
        """Counts frames by the convolutions' formula, whatever ``mask_rule``.

        Arguments
        ---------
        lengths : torch.Tensor or int
            Number of samples, [B] or a single one.

        Returns
        -------
        torch.Tensor or int
            Number of frames.

        Example
        -------
        >>> Backbone.from_preset("tiny").output_lengths(16000)
        49
        """
        extractor = self.feature_extractor
        return conv_lengths(lengths, extractor.kernels, extractor.strides)

    def frame_lens(
        self, num_samples: int, wav_lens: torch.Tensor
    ) -> torch.Tensor:
        """Relative lengths of the features, exact to the frame.

        Arguments
        ---------
        num_samples : int
            Padded length N of the waveforms.
        wav_lens : torch.Tensor
            Valid share of each waveform, in (0, 1], [B].

        Returns
        -------
        torch.Tensor
            Valid share of each row of features, [B]: rounding its product
            with T gives the row's own frame count by ``mask_rule``. The count
            itself where a graph is exported.

        Example
        -------
        >>> backbone = Backbone.from_preset("tiny")
        >>> 49 * backbone.frame_lens(16000, torch.tensor([1.0, 0.5]))
        tensor([49., 24.])
        """
        lengths = absolute_lengths(wav_lens, num_samples)
        frames = self._valid_frames(lengths, num_samples)
        if is_exported():
            return frames
        return frames / self.output_lengths(num_samples)

    def prepare(
        self, wav: torch.Tensor, wav_lens: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Checks and normalises waveforms.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms at 16 kHz, [B, N].
        wav_lens : torch.Tensor, optional
            Valid share of each waveform, in (0, 1], [B].

        Returns
        -------
        wav : torch.Tensor
            What the convolutions take, [B, N].
        lengths : torch.Tensor or None
            Number of valid samples of each, [B]; None when none is padded.
        counted : torch.Tensor or None
            Number of samples that the convolutions count, [B]: all of them,
            None, by ``mask_rule`` fairseq.
        """
        lengths = sample_lengths(wav, wav_lens, self.feature_extractor.field)
        if self.normalize_wav:
            wav = normalize_wavs(wav, lengths, self.normalize_eps)
        if self.mask_rule != "fairseq" or lengths is None:
            return wav, lengths, lengths
        # Its convolutions and its group norm take the padding, which is
        # zeros, for speech: some of its valid frames reach into it.
        wav = wav.masked_fill(~length_mask(lengths, wav.shape[1]), 0.0)
        return wav, lengths, None

    def train(self, mode: bool = True) -> "Backbone":
        """Sets the mode, except where frozen: ``Brain.fit`` would undo it.

        Arguments
        ---------
        mode : bool
            Training mode if True.

        Returns
        -------
        Backbone
            Itself.
        """
        super().train(mode and not self.freeze)
        if self.freeze_feature_extractor:
            self.feature_extractor.eval()
        return self

    def _features(self, wav, wav_lens=None, mask_time_indices=None):
        """From waveforms to the encoder's masked input."""
        wav, lengths, counted = self.prepare(wav, wav_lens)
        feats = self.feature_extractor(wav, counted, self._recomputes())
        if lengths is not None:
            lengths = self._valid_frames(lengths, wav.shape[1])
        feats, normed = self.feature_projection(feats)
        feats = self._masked(feats, lengths, mask_time_indices)
        return feats, normed, lengths

    def _masked(self, feats, lengths, mask_time_indices):
        """Writes the mask embedding over frames, given or drawn ones, and
        zeros over drawn channels."""
        batch, frames, dim = feats.shape
        augment = self.apply_spec_augment and self.training
        if mask_time_indices is None and augment and self.mask_time_prob > 0:
            mask_time_indices = span_mask(
                lengths if lengths is not None
                else torch.full((batch,), frames, device=feats.device),
                frames, self.mask_time_prob, self.mask_time_length,
                self.mask_time_min_masks,
            )  # fmt: skip
        if mask_time_indices is not None:
            embedding = self.masked_spec_embed.to(feats.dtype)
            feats = torch.where(mask_time_indices[..., None], embedding, feats)
        elif self.training and torch.is_grad_enabled():
            feats = keep_in_graph(feats, [self.masked_spec_embed])
        if augment and self.mask_feature_prob > 0:
            channels = span_mask(
                torch.full((batch,), dim, device=feats.device),
                dim, self.mask_feature_prob, self.mask_feature_length,
                self.mask_feature_min_masks,
            )  # fmt: skip
            feats = feats.masked_fill(channels[:, None], 0.0)
        return feats

    def _valid_frames(self, lengths, num_samples):
        """Counts the valid frames of each row of a padded batch."""
        if self.mask_rule == "hf":
            return self.output_lengths(lengths)
        total = self.output_lengths(num_samples)
        return chunk_lengths(lengths, num_samples, total)

    def _states(self, feats, lengths, maps=False, raw=False, wanted=None):
        """The encoder's hidden states, one by one."""
        return self.encoder(
            feats, lengths, self.mask_rule == "fairseq", maps,
            self._recomputes(), raw, wanted,
        )  # fmt: skip

    def _recomputes(self):
        """Whether the backward pass should compute activations again."""
        return self.gradient_checkpointing and torch.is_grad_enabled()


def _build_extractor(options):
    """The convolutions."""
    convs = [options[f"conv_{n}"] for n in ("dim", "kernel", "stride", "bias")]
    norm, act = options["feat_extract_norm"], options["feat_extract_activation"]
    return FeatureExtractor(*convs, norm, act)


def _build_encoder(options):
    """Positions and blocks, with weights drawn as transformers draws them."""
    dim, eps = options["hidden_size"], options["layer_norm_eps"]
    stable, inner = options["do_stable_layer_norm"], options["adapter_attn_dim"]
    if inner is not None and not stable:
        raise ValueError(
            "adapter_attn_dim: expected None without do_stable_layer_norm, as "
            f"only pre-norm blocks have adapters; got {inner}"
        )
    dropout = options["hidden_dropout"]
    blocks = [
        EncoderLayer(
            Attention(
                dim, options["num_attention_heads"],
                options["attention_dropout"], options["num_buckets"],
                options["max_bucket_distance"], number == 0,
            ),
            FeedForward(
                dim, options["intermediate_size"], options["hidden_act"],
                options["activation_dropout"], dropout,
            ),
            dim, dropout, eps, stable,
            None if inner is None else AttentionAdapter(dim, inner),
        )
        for number in range(options["num_hidden_layers"])
    ]  # fmt: skip
    draw_weights(blocks, options["initializer_range"])
    positions = PositionalConv(
        dim, options["num_conv_pos_embeddings"],
        options["num_conv_pos_embedding_groups"],
        options["feat_extract_activation"], options["pos_conv_weight_norm"],
    )  # fmt: skip
    window, context = options["window_s"], 0
    if window is not None:
        rate = 16000 / math.prod(options["conv_stride"])
        window, context = round(window * rate), round(_CONTEXT_S * rate)
    return Encoder(
        positions, blocks, dim, dropout, eps, options["layerdrop"], window,
        context,
    )  # fmt: skip


def _check_choice(name, value):
    """Refuses what is not among the choices of an option."""
    rule = OPTIONS[name].rule
    choices = rule.choices if rule else ()
    if choices and value not in choices:
        raise ValueError(
            f"{name}: expected {' or '.join(choices)}; got {value!r}"
        )


def _options(cls):
    """Names of the options of a backbone class."""
    return list(inspect.signature(cls).parameters)
