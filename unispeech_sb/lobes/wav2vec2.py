"""SpeechBrain's own classes of self-supervised models, by their names.

A yaml of SpeechBrain's recipes changes the class alone and keeps its keywords:

    wav2vec2: !new:unispeech_sb.lobes.Wav2Vec2
        source: microsoft/unispeech-sat-base-plus
        save_path: !ref <save_folder>
        freeze: True
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.nnet.pooling import LayerMix

__all__ = ["WeightedSSLModel", "Wav2Vec2"]


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


class WeightedSSLModel(nn.Module):
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
        **kwargs: Any,
    ) -> None:
        super().__init__()
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
