"""SpeechBrain's own classes of self-supervised models, by their names.

A yaml of SpeechBrain's recipes changes the class alone and keeps its keywords:

    wav2vec2: !new:unispeech_sb.lobes.Wav2Vec2
        source: microsoft/unispeech-sat-base-plus
        save_path: !ref <save_folder>
        freeze: True
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from torch import nn
from torch.nn import functional as F

from unispeech_sb.checkpoints.options import BACKBONE, HEADS, OURS
from unispeech_sb.checkpoints.source import read_backbone
from unispeech_sb.lobes.backbone import PRESETS, Backbone
from unispeech_sb.lobes.heads import UniSpeechHead
from unispeech_sb.lobes.lobe import LobeGroup
from unispeech_sb.lobes.pretraining import (
    Negatives,
    UniSpeech,
    UniSpeechDraws,
    weighted_loss,
)
from unispeech_sb.nnet.masking import SpanMasks
from unispeech_sb.nnet.pooling import LayerMix

__all__ = [
    "Wav2Vec2",
    "Wav2Vec2Pretrain",
    "Wav2Vec2PretrainOutput",
    "WeightedSSLModel",
]

_PRETRAIN_WEIGHTS = {
    "contrastive": 1.0,
    "diversity": 0.1,
    "feature_penalty": 0.0,
}
"""Those of UniSpeech's second stage, and of transformers."""
_CODEVECTORS = (
    *("num_codevector_groups", "num_codevectors_per_group"),
    "codevector_dim",
)
_BACKBONE_OPTIONS = (*BACKBONE, *OURS)
_OFF = (
    *("freeze", "freeze_feature_extractor", "output_norm"),
    *("apply_spec_augment", "output_all_hiddens"),
)
"""What a lobe of features may do and pre-training does not."""


class Wav2Vec2:
    """``Backbone.from_pretrained`` as a class, for ``!new:`` in a yaml.

    What is made is a ``Backbone``, which has the attributes and methods that
    SpeechBrain's recipes use of its ``Wav2Vec2``: ``model`` (itself),
    ``config``, ``freeze``, ``extract_features``, ``freeze_model``.

    Arguments
    ---------
    source : str or pathlib.Path
        As for ``Backbone.from_pretrained``: folder, file, or hub name.
    save_path : str, optional
        Where downloads are kept; the hub's own cache when omitted or empty.
    **kwargs
        All keywords of SpeechBrain's ``Wav2Vec2``, ``device`` or ``device_map``
        (one device), and options of ``Backbone``. What transformers or
        SpeechBrain's ``FairseqWav2Vec2`` call otherwise is refused with the
        name that it has here.

    Raises
    ------
    ValueError
        As ``Backbone.from_pretrained``.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> Backbone.from_preset("tiny").save(folder / "backbone.ckpt")
    >>> lobe = Wav2Vec2(folder, save_path="", freeze=True)
    >>> lobe.model(torch.randn(2, 1600)).shape
    torch.Size([2, 4, 16])
    """

    def __new__(  # type: ignore[misc]
        cls: type,
        source: str | Path,
        save_path: str | None = None,
        **kwargs: Any,
    ) -> Backbone:
        """Loads the backbone."""
        devices = [kwargs.pop(name, None) for name in ("device", "device_map")]
        lobe = Backbone.from_pretrained(source, save_path or None, **kwargs)
        for device in devices:
            lobe = lobe if device is None else lobe.to(device)
        return lobe


class WeightedSSLModel(LobeGroup):
    """Learned weighted sum of all hidden states, as SpeechBrain's class of
    that name (benchmarks MP3S and DASB).

    Padding changes nothing where ``wav_lens`` is given; the benchmarks call it
    with waveforms alone.

    Arguments
    ---------
    hub : str or pathlib.Path
        Source of the backbone, as for ``Backbone.from_pretrained``.
    save_path : str, optional
        Where downloads are kept; the hub's own cache when omitted or empty.
    layernorm : bool
        Normalise each frame of each hidden state over its channels first.
    freeze : bool
        Train the weights of the sum alone.
    normalize_wav : bool or None
        Give each waveform zero mean and unit variance first, which
        SpeechBrain's class never does; None to do what the checkpoint says.
    **kwargs
        Other options of ``Backbone.from_pretrained``.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> Backbone.from_preset("tiny").save(folder / "backbone.ckpt")
    >>> lobe = WeightedSSLModel(folder, freeze=True)
    >>> lobe(torch.randn(2, 1600)).shape, lobe.num_layers, len(lobe.weights)
    (torch.Size([2, 4, 16]), 3, 3)
    """

    def __init__(
        self,
        hub: str | Path,
        save_path: str | None = None,
        layernorm: bool = False,
        freeze: bool = False,
        normalize_wav: bool | None = False,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if normalize_wav is not None:
            kwargs["normalize_wav"] = normalize_wav
        self.model = Wav2Vec2(hub, save_path, freeze=freeze, **kwargs)
        self.layernorm = layernorm
        self.num_layers = self.model.num_states
        self.layer_mix = LayerMix(self.num_layers)

    @property
    def weights(self) -> nn.Parameter:
        """Weights of the hidden states before the softmax, [L+1]."""
        return self.layer_mix.weights

    @property
    def config(self) -> dict[str, Any]:
        """The backbone's options, also as attributes."""
        return self.model.config

    @property
    def freeze(self) -> bool:
        """Whether the backbone is frozen; may be set at any time."""
        return self.model.freeze

    @freeze.setter
    def freeze(self, value: bool) -> None:
        """Freezes the backbone, or ends it."""
        self.model.freeze = value

    def forward(
        self, wav: torch.Tensor, wav_lens: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Sums the hidden states.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms at 16 kHz, [B, N].
        wav_lens : torch.Tensor, optional
            Valid share of each waveform, in (0, 1], [B].

        Returns
        -------
        torch.Tensor
            The encoder's input and the outputs of its blocks, weighted and
            summed, [B, T, D].
        """
        return self.layer_mix(
            F.layer_norm(state, state.shape[-1:]) if self.layernorm else state
            for state in self.model.iter_states(wav, wav_lens)
        )


class Wav2Vec2PretrainOutput(NamedTuple):
    """What ``Wav2Vec2Pretrain`` computes, under transformers' names.

    Arguments
    ---------
    loss : torch.Tensor
        The contrastive loss and a tenth of the diversity loss, a scalar: a
        sum over the masked frames, as in transformers.
    projected_states : torch.Tensor
        Context vectors as the loss compares them, [B, T, P].
    projected_quantized_states : torch.Tensor
        Quantized features as it compares them, [B, T, P].
    codevector_perplexity : torch.Tensor
        Of the codes that are used in this batch.
    contrastive_loss, diversity_loss : torch.Tensor
        The parts of the loss.

    Example
    -------
    >>> Wav2Vec2PretrainOutput._fields[0]
    'loss'
    """

    loss: torch.Tensor
    projected_states: torch.Tensor
    projected_quantized_states: torch.Tensor
    codevector_perplexity: torch.Tensor
    contrastive_loss: torch.Tensor
    diversity_loss: torch.Tensor


class Wav2Vec2Pretrain(UniSpeech):
    """Contrastive pre-training from random weights, as SpeechBrain's class of
    that name: UniSpeech's objective without phones (Wang et al. 2021).

    Masks and candidates are drawn in evaluation too, and never from padding.
    The temperature of the Gumbel softmax is that of ``num_updates``, an
    attribute that a recipe may set: 2.0 where nothing does, as in SpeechBrain.

    Arguments
    ---------
    source : str or pathlib.Path
        What says the sizes: a name in ``PRESETS``, or any source of
        ``Backbone.from_pretrained``, whose weights are not used.
    save_path : str, optional
        Where downloads are kept; the hub's own cache when omitted or empty.
    mask_prob : float
        Share of frames to mask if spans did not overlap, in [0, 1].
    mask_length : int
        Length of a span, in frames.
    normalize_wav : bool
        Give each waveform zero mean and unit variance first.
    num_negatives : int
        Candidates of each masked frame, from its utterance.
    **kwargs
        Options of ``Backbone``.

    Raises
    ------
    ValueError
        For a model of UniSpeech-SAT, whose objective needs units.

    Example
    -------
    >>> lobe = Wav2Vec2Pretrain("tiny", mask_length=2)
    >>> out, mask = lobe(torch.randn(2, 8000), torch.tensor([1.0, 0.5]))
    >>> mask.shape, out.projected_states.shape
    (torch.Size([2, 24]), torch.Size([2, 24, 16]))
    """

    def __init__(
        self,
        source: str | Path,
        save_path: str | None = None,
        mask_prob: float = 0.65,
        mask_length: int = 10,
        normalize_wav: bool = True,
        num_negatives: int = 100,
        **kwargs: Any,
    ) -> None:
        found: dict[str, Any] = PRESETS.get(str(source), {})
        family = "unispeech-sat" if "_sat_" in str(source) else None
        if str(source) not in PRESETS:
            found, _, _ = read_backbone(source, save_path or None)
            family = found.get("family")
        if family == "unispeech-sat":
            raise ValueError(
                f"Wav2Vec2Pretrain: expected a model of UniSpeech; {source} is "
                "of UniSpeech-SAT, whose objective needs a unit for each "
                "frame: unispeech-sb recipe pretrain_unispeech_sat"
            )
        options = {n: found[n] for n in _BACKBONE_OPTIONS if n in found}
        options |= dict.fromkeys(_OFF, False)
        backbone = Backbone(
            **{**options, **kwargs, "normalize_wav": normalize_wav}
        )
        settings = {**HEADS, **found}
        super().__init__(
            backbone,
            UniSpeechHead(
                backbone.dim,
                backbone.config["conv_dim"][-1],
                [settings[name] for name in _CODEVECTORS],
                settings["proj_codevector_dim"],
                num_ctc_classes=0,
                dropouts=[settings["feat_quantizer_dropout"], 0.0],
            ),
            SpanMasks(mask_prob, mask_length),
            Negatives(num_negatives),
        )
        self.mask_prob, self.mask_length = mask_prob, mask_length
        self.normalize_wav, self.num_updates = normalize_wav, 0

    @property
    def model(self) -> Backbone:
        """The backbone: what SpeechBrain's lobe calls so has one in it."""
        return self.backbone

    @property
    def config(self) -> dict[str, Any]:
        """The backbone's options, also as attributes."""
        return self.backbone.config

    def forward(  # type: ignore[override]
        self, wav: torch.Tensor, wav_lens: torch.Tensor | None = None
    ) -> tuple[Wav2Vec2PretrainOutput, torch.Tensor]:
        """Computes the loss of a batch.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms at 16 kHz, [B, N].
        wav_lens : torch.Tensor, optional
            Valid share of each waveform, in (0, 1], [B].

        Returns
        -------
        out : Wav2Vec2PretrainOutput
            Loss and what it compares.
        mask : torch.Tensor
            1 at masked frames, 0 elsewhere, int64, [B, T].

        Raises
        ------
        ValueError
            When no frame is masked, or an utterance has a single frame.
        """
        frames = self.encode_masked(wav, wav_lens)
        temperature = self.temperature(self.num_updates)
        found, vectors = self.compare(frames, temperature, UniSpeechDraws())
        states = frames.output.last_hidden_state
        out = Wav2Vec2PretrainOutput(
            weighted_loss(found, _PRETRAIN_WEIGHTS),
            states if self.training else states.as_subclass(_Scored),
            vectors,
            torch.as_tensor(found.diagnostics["prob_perplexity"]),
            found.losses["contrastive"],
            found.losses["diversity"],
        )
        return out, frames.mask.long()


class _Scored(torch.Tensor):
    """A tensor of which yaml writes what is calculated, a single number, as a
    number. SpeechBrain's recipe gives its accuracy to the checkpointer as a
    tensor, and from 1.1.1 on cannot read back what yaml makes of one."""

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        """The number, for logs."""
        return str(self.tolist())


def _represent_scored(dumper, tensor):
    """A single number as a number."""
    if tensor.dim() == 0:
        return dumper.represent_float(tensor.item())
    return dumper.represent_object(tensor)


yaml.add_representer(_Scored, _represent_scored)  # of other tensors none
