"""Wrappers of backbone and head for SpeechBrain's inference interfaces."""

import inspect
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F
from torchaudio.transforms import Resample

from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads.classification import (
    FrameHead,
    ProjectedFrameHead,
    RecurrentHead,
    UtteranceHead,
)
from unispeech_sb.lobes.heads.diarization import DiarizationHead, EENDVCHead
from unispeech_sb.lobes.heads.speaker import (
    AAMSoftmax,
    AMSoftmax,
    ECAPAHead,
    SpeakerHead,
    StatisticsHead,
)
from unispeech_sb.nnet.lengths import (
    absolute_lengths,
    is_exported,
    length_mask,
)
from unispeech_sb.nnet.losses import PROBLEM_TYPES, check_combinations

_NARROW_HZ, _WIDE_HZ = 8000, 16000
"""Rate of telephone speech, and of what backbones take."""

_LENGTHS = ("wav_lens", "lengths", "lens")
"""What SpeechBrain's modules call relative lengths."""


class FramePosteriors(nn.Module):
    """Waveforms to log-posteriors of every frame: the ``encoder`` of
    SpeechBrain's ``EncoderASR``.

    An utterance decodes to the same alone and in any batch. SpeechBrain's
    decoders take a waveform's share of the batch for that of its frames, and
    so may miss a frame at its end or read several of the padding: here the
    padding is certain to be the blank, and long enough for none to be missed.

    Arguments
    ---------
    backbone : Backbone
        Waveforms to features.
    head : FrameHead
        Features to logits, or another head with a ``classifier``.
    blank_index : int
        Index of the blank.

    Example
    -------
    >>> import torch
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> from unispeech_sb.lobes.heads import FrameHead
    >>> head = FrameHead(input_size=16, num_classes=5)
    >>> encoder = FramePosteriors(Backbone.from_preset("tiny"), head)
    >>> encoder(torch.randn(2, 1600)).shape
    torch.Size([2, 4, 5])
    """

    def __init__(
        self,
        backbone: Backbone,
        head: FrameHead | RecurrentHead | ProjectedFrameHead,
        blank_index: int = 0,
    ) -> None:
        super().__init__()
        num_classes = head.classifier.out_features
        if not 0 <= blank_index < num_classes:
            raise ValueError(
                f"blank_index: expected 0 to {num_classes - 1}; "
                f"got {blank_index}"
            )
        self.backbone = backbone
        self.head = head
        self.blank_index = blank_index

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what ``compute`` gives."""
        return "log_posteriors", "num_frames"

    def compute(
        self, wav: torch.Tensor, wav_lens: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Scores frames, as another runtime does in this module's place.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms at 16 kHz, [B, N].
        wav_lens : torch.Tensor, optional
            Valid share of each waveform, in (0, 1], [B].

        Returns
        -------
        log_posteriors : torch.Tensor
            In float32, [B, T, V]. Frames in the padding hold anything, and
            those of the blank where a graph is exported.
        num_frames : torch.Tensor or None
            Valid frames of each row, [B]; None without lengths.
        """
        feats, lengths = _features(self.backbone, self.head, wav, wav_lens)
        log_probs = self.head(feats, lengths).float().log_softmax(-1)
        if lengths is None:
            return log_probs, None
        frames = log_probs.shape[1]
        counts = absolute_lengths(lengths, frames)
        if is_exported():
            log_probs = self._with_blanks(log_probs, counts, frames)
        return log_probs, counts

    def forward(
        self, wav: torch.Tensor, wav_lens: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Scores the frames of waveforms.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms at 16 kHz, [B, N].
        wav_lens : torch.Tensor, optional
            Valid share of each waveform, in (0, 1], [B].

        Returns
        -------
        torch.Tensor
            Log-posteriors in float32, [B, T, V]. ``wav_lens * T`` is never
            less than a row's own frames, for which a padded batch may get
            more frames than its longest row has.

        Raises
        ------
        ValueError
            When a waveform is shorter than one frame or holds NaN or infinite
            samples.
        """
        _check_sound(wav, wav_lens, allow_silence=True)
        log_probs, counts = self.compute(wav, wav_lens)
        if wav_lens is None:
            return log_probs
        padded = _frames_to_hold(counts, wav_lens, log_probs.shape[1])
        return self._with_blanks(log_probs, counts, padded)

    def _with_blanks(self, log_probs, counts, frames):
        """Rows of so many frames, the first ``counts`` of which are given and
        the others certain to be blank."""
        device = log_probs.device
        log_probs = F.pad(log_probs, (0, 0, 0, frames - log_probs.shape[1]))
        tokens = torch.arange(log_probs.shape[2], device=device)
        # Not -inf, which sums of a decoder may turn into NaN
        least = torch.finfo(torch.float32).min
        blank = torch.where(tokens == self.blank_index, 0.0, least)
        mask = length_mask(counts.to(device), frames)
        return torch.where(mask[..., None], log_probs, blank)


class FrameActivities(nn.Module):
    """Waveforms to the activities of speakers: what ``SpeakerDiarization``
    runs.

    Arguments
    ---------
    backbone : Backbone
        Waveforms to features.
    head : DiarizationHead, EENDVCHead or FrameHead
        Features to activities; EENDVCHead also to embeddings of speakers.
    narrow_band : bool
        Take waveforms at 8 kHz, which are resampled to 16 kHz.

    Example
    -------
    >>> import torch
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> from unispeech_sb.lobes.heads import FrameHead
    >>> head = FrameHead(input_size=16, num_classes=2)
    >>> encoder = FrameActivities(Backbone.from_preset("tiny"), head)
    >>> activities, num_frames = encoder(torch.randn(2, 1600))
    >>> activities.shape, num_frames
    (torch.Size([2, 5, 2]), tensor([5, 5]))
    """

    def __init__(
        self,
        backbone: Backbone,
        head: DiarizationHead | EENDVCHead | FrameHead,
        narrow_band: bool = False,
    ) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.narrow_band = narrow_band
        self.rate = _NARROW_HZ if narrow_band else _WIDE_HZ
        self.clusters = isinstance(head, EENDVCHead)
        extractor = backbone.feature_extractor
        self._hop = extractor.hop * (2 if self.clusters else 1)
        self.hop = self._hop * self.rate // _WIDE_HZ
        self.least = -(-extractor.field * self.rate // _WIDE_HZ)
        self.frame_s = self.hop / self.rate
        self._resample = Resample(_NARROW_HZ, _WIDE_HZ)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what ``compute`` gives."""
        names = "activities", "num_frames", "speakers"
        return names if self.clusters else names[:2]

    def forward(
        self, wav: torch.Tensor, wav_lens: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Scores the activity of each speaker in each frame.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms at ``rate``, [B, N].
        wav_lens : torch.Tensor, optional
            Valid share of each waveform, in (0, 1], [B].

        Returns
        -------
        activities : torch.Tensor
            Probability that a speaker is active, 0 in the padding, [B, T, S].
        num_frames : torch.Tensor
            Valid frames of each row, one for each whole ``hop``, [B].
        speakers : torch.Tensor
            Of an EENDVCHead: a unit vector for each speaker, [B, S, E].
        """
        return self.compute(self.widen(wav, wav_lens), wav_lens)

    def widen(
        self, wav: torch.Tensor, wav_lens: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Brings waveforms to 16 kHz, as torchaudio resamples.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms at ``rate``, [B, N].
        wav_lens : torch.Tensor, optional
            Valid share of each waveform, in (0, 1], [B]. The padding counts
            as silence.

        Returns
        -------
        torch.Tensor
            Waveforms at 16 kHz.
        """
        if not self.narrow_band:
            return wav
        if wav_lens is not None:
            counts = absolute_lengths(wav_lens, wav.shape[1])
            mask = length_mask(counts, wav.shape[1])
            wav = wav.masked_fill(~mask.to(wav.device), 0.0)
        kernel, width = self._resample.kernel, self._resample.width
        wide = F.pad(wav, (width, width + 1))[:, None]
        wide = F.conv1d(wide, kernel.to(wav))  # [B, 2, N + 1]
        return wide.transpose(1, 2).flatten(1)[:, : 2 * wav.shape[1]]

    def compute(
        self, wav: torch.Tensor, wav_lens: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        """As ``forward``, as another runtime does in this module's place.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms at 16 kHz, [B, N].
        wav_lens : torch.Tensor, optional
            Valid share of each waveform, in (0, 1], [B].

        Returns
        -------
        tuple of torch.Tensor
            As of ``forward``.
        """
        batch, samples = wav.shape
        counts = torch.full((batch,), samples, device=wav.device)
        if wav_lens is not None:
            counts = absolute_lengths(wav_lens, samples)
        num_frames = (counts // self._hop).clamp(min=1)
        # Rounded up, of positive numbers: ONNX rounds others towards zero
        most = (samples + self._hop - 1) // self._hop
        if not is_exported():
            most = int(num_frames.max())
        feats, lengths = _features(self.backbone, self.head, wav, wav_lens)
        others: list[torch.Tensor] = []
        if isinstance(self.head, EENDVCHead):
            scored = self.head.estimate(feats, lengths, num_frames, most)
            found, *others = scored
        else:
            found = self.head(feats, lengths).float().sigmoid()
            found = _continued(found, lengths, most)
        mask = length_mask(num_frames, most)[..., None]
        return found.float().masked_fill(~mask, 0.0), num_frames, *others


class UtteranceEncoder(nn.Module):
    """Waveforms to one vector each: the ``embedding_model`` of SpeechBrain's
    ``EncoderClassifier``.

    Arguments
    ---------
    backbone : Backbone
        Waveforms to features.
    head : UtteranceHead, StatisticsHead, SpeakerHead or ECAPAHead
        Features to a vector, by ``embed``.
    allow_silence : bool
        Accept waveforms whose samples are all zero, for models that have a
        class for it.

    Example
    -------
    >>> import torch
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> from unispeech_sb.lobes.heads import UtteranceHead
    >>> head = UtteranceHead(input_size=16, num_classes=4, proj_size=8)
    >>> encoder = UtteranceEncoder(Backbone.from_preset("tiny"), head)
    >>> encoder(torch.randn(2, 1600)).shape
    torch.Size([2, 1, 8])
    """

    def __init__(
        self,
        backbone: Backbone,
        head: UtteranceHead | StatisticsHead | SpeakerHead | ECAPAHead,
        allow_silence: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.allow_silence = allow_silence

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what ``compute`` gives."""
        return ("embeddings",)

    def compute(
        self, wav: torch.Tensor, wav_lens: torch.Tensor | None = None
    ) -> tuple[torch.Tensor]:
        """Embeds waveforms, as another runtime does in this module's place.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms at 16 kHz, [B, N].
        wav_lens : torch.Tensor, optional
            Valid share of each waveform, in (0, 1], [B].

        Returns
        -------
        tuple of torch.Tensor
            Embeddings, [B, E].
        """
        feats, lengths = _features(self.backbone, self.head, wav, wav_lens)
        return (self.head.embed(feats, lengths),)

    def forward(
        self, wav: torch.Tensor, wav_lens: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Embeds waveforms.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms at 16 kHz, [B, N].
        wav_lens : torch.Tensor, optional
            Valid share of each waveform, in (0, 1], [B].

        Returns
        -------
        torch.Tensor
            Embeddings, [B, 1, E].

        Raises
        ------
        ValueError
            When a waveform is shorter than one frame, holds NaN or infinite
            samples, or is silent.
        """
        _check_sound(wav, wav_lens, self.allow_silence)
        return self.compute(wav, wav_lens)[0][:, None]


class UtterancePosteriors(nn.Module):
    """Vectors to log-posteriors: the ``classifier`` of SpeechBrain's
    ``EncoderClassifier``.

    Arguments
    ---------
    head : UtteranceHead or StatisticsHead
        Its classifier is used.
    problem_type : str
        As for ``classification_loss``: log-softmax for a single label, the
        log-probability of each class for several, values for regression.

    Example
    -------
    >>> import torch
    >>> from unispeech_sb.lobes.heads import UtteranceHead
    >>> head = UtteranceHead(input_size=16, num_classes=4, proj_size=8)
    >>> UtterancePosteriors(head)(torch.randn(2, 1, 8)).exp().sum(-1).shape
    torch.Size([2, 1])
    """

    def __init__(
        self,
        head: UtteranceHead | StatisticsHead,
        problem_type: str = PROBLEM_TYPES[0],
    ) -> None:
        super().__init__()
        if problem_type not in PROBLEM_TYPES:
            raise ValueError(
                f"problem_type: expected one of {', '.join(PROBLEM_TYPES)}; "
                f"got {problem_type!r}"
            )
        self.head = head
        self.problem_type = problem_type

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Scores embeddings.

        Arguments
        ---------
        embeddings : torch.Tensor
            From ``UtteranceEncoder``, [B, 1, proj_size].

        Returns
        -------
        torch.Tensor
            Log-posteriors in float32, [B, 1, C].
        """
        assert self.head.classifier is not None  # of a head with classes
        logits = self.head.classifier(embeddings).float()
        if self.problem_type == "multi_label_classification":
            return F.logsigmoid(logits)
        if self.problem_type == "regression":
            return logits
        return torch.log_softmax(logits, -1)


class IntentPosteriors(nn.Module):
    """Vectors to log-posteriors of all combinations of the values of slots:
    the ``classifier`` of SpeechBrain's ``EncoderClassifier``.

    Slots are independent of one another, so the likeliest combination is that
    of their likeliest values. The last slot's value changes fastest.

    Arguments
    ---------
    head : UtteranceHead or StatisticsHead
        Its classifier is used.
    slot_sizes : list of int
        Number of values of each slot, all of the classifier's outputs
        together; at most 100 000 combinations.

    Example
    -------
    >>> import torch
    >>> from unispeech_sb.lobes.heads import UtteranceHead
    >>> head = UtteranceHead(input_size=16, num_classes=5, proj_size=8)
    >>> classifier = IntentPosteriors(head, [2, 3])
    >>> classifier(torch.randn(2, 1, 8)).exp().sum(-1).shape
    torch.Size([2, 1])
    """

    def __init__(
        self, head: UtteranceHead | StatisticsHead, slot_sizes: Sequence[int]
    ) -> None:
        super().__init__()
        classifier = getattr(head, "classifier", None)
        if not isinstance(classifier, nn.Linear):
            raise ValueError("head: expected one with a classifier of classes")
        num_classes = classifier.out_features
        fits = all(type(size) is int and size > 0 for size in slot_sizes)
        if not fits or sum(slot_sizes) != num_classes:
            raise ValueError(
                f"slot_sizes: expected {num_classes} values in all, those of "
                f"the head; got {list(slot_sizes)!r:.60}"
            )
        check_combinations(slot_sizes)
        self.head = head
        self.slot_sizes = list(slot_sizes)

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Scores embeddings.

        Arguments
        ---------
        embeddings : torch.Tensor
            From ``UtteranceEncoder``, [B, 1, proj_size].

        Returns
        -------
        torch.Tensor
            Log-posteriors in float32, [B, 1, C] with C combinations.
        """
        assert self.head.classifier is not None  # of a head with classes
        logits = self.head.classifier(embeddings).float()
        first, *others = (
            part.log_softmax(-1) for part in logits.split(self.slot_sizes, -1)
        )
        for part in others:
            first = (first[..., None] + part[..., None, :]).flatten(2)
        return first


class SpeakerPosteriors(nn.Module):
    """Speaker vectors to log-posteriors of the speakers of the training: the
    ``classifier`` of SpeechBrain's ``EncoderClassifier``.

    Arguments
    ---------
    head : SpeakerHead, ECAPAHead or StatisticsHead
        Its ``project`` leads from the vectors that are compared to those that
        the objective takes.
    objective : AMSoftmax or AAMSoftmax
        Scores the speakers, without a margin.

    Example
    -------
    >>> import torch
    >>> from unispeech_sb.lobes.heads import AMSoftmax, SpeakerHead
    >>> head = SpeakerHead(16, [8], [1], [1], xvector_output_dim=4)
    >>> classifier = SpeakerPosteriors(head, AMSoftmax(4, num_classes=3))
    >>> classifier(torch.randn(2, 1, 4)).exp().sum(-1).shape
    torch.Size([2, 1])
    """

    def __init__(
        self,
        head: SpeakerHead | ECAPAHead | StatisticsHead,
        objective: AMSoftmax | AAMSoftmax,
    ) -> None:
        super().__init__()
        self.head = head
        self.objective = objective

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Scores embeddings.

        Arguments
        ---------
        embeddings : torch.Tensor
            From ``UtteranceEncoder``, [B, 1, X].

        Returns
        -------
        torch.Tensor
            Log-posteriors in float32, [B, 1, C].
        """
        scores = self.objective(self.head.project(embeddings[:, 0]))
        return scores.log_softmax(-1)[:, None]


class PassThrough(nn.Module):
    """Returns its input: for the steps of SpeechBrain's interfaces that the
    backbone makes needless.

    Example
    -------
    >>> import torch
    >>> PassThrough()(torch.ones(1))
    tensor([1.])
    """

    def forward(
        self, x: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Returns the input.

        Arguments
        ---------
        x : torch.Tensor
            Anything.
        lengths : torch.Tensor, optional
            Not used.

        Returns
        -------
        torch.Tensor
            The input.
        """
        return x


class Chain(nn.Module):
    """Modules one after another, as a recipe of SpeechBrain runs them: what a
    recipe trained, as one part of an interface.

    Arguments
    ---------
    **modules : torch.nn.Module
        Each by its name, in their order. Of several results of one the first
        goes on.

    Example
    -------
    >>> import torch
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> backbone = Backbone.from_preset("tiny")
    >>> chain = Chain(backbone=backbone, lin=torch.nn.Linear(16, 5))
    >>> chain(torch.randn(2, 1600), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 4, 5])
    """

    def __init__(self, **modules: nn.Module) -> None:
        super().__init__()
        self.steps = nn.ModuleDict(modules)

    def forward(
        self, wav: torch.Tensor, wav_lens: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Runs the modules.

        Arguments
        ---------
        wav : torch.Tensor
            What the first one takes: waveforms, [B, N].
        wav_lens : torch.Tensor, optional
            Valid share of each row, in (0, 1], [B]: given to each module that
            takes lengths, whatever it calls them.

        Returns
        -------
        torch.Tensor
            What the last one gives.
        """
        for module in self.steps.values():
            known = inspect.signature(module.forward).parameters
            names = [name for name in _LENGTHS if name in known]
            given = dict.fromkeys(names[:1], wav_lens)
            wav = module(wav, **given)
            if isinstance(wav, tuple):
                wav = wav[0]
        return wav


def _features(backbone, head, wav, wav_lens):
    """What a head takes: features or all states, and their lengths."""
    if head.layer_mix is None:
        for state in backbone.iter_states(wav, wav_lens, "normed"):
            feats = state
    else:
        feats = backbone.iter_states(wav, wav_lens)
    lengths = None
    if wav_lens is not None:
        lengths = backbone.frame_lens(wav.shape[1], wav_lens)
    return feats, lengths


def _continued(found, lengths, most):
    """Repeats the last frame of each row until its samples end.

    The convolutions leave one frame less than there are strides.
    """
    batch, frames, size = found.shape
    counts = torch.full((batch,), frames, device=found.device)
    if lengths is not None:
        counts = absolute_lengths(lengths, frames)
    places = torch.arange(most, device=found.device)
    places = torch.minimum(places[None], counts[:, None] - 1)
    return found.gather(1, places[..., None].expand(-1, -1, size))


def _frames_to_hold(counts, wav_lens, frames):
    """Frames of a batch of which each row's share holds all of its own.

    SpeechBrain's greedy search rounds the product, its beam search cuts it.
    """
    while ((frames * wav_lens).long() < counts.to(wav_lens.device)).any():
        frames += 1
    return frames


def _check_sound(wav, wav_lens, allow_silence):
    """Refuses waveforms that hold no number or no sound."""
    if wav.dim() != 2 or wav.shape[1] == 0:
        return  # the backbone refuses it with what it expects
    valid = wav
    if wav_lens is not None:
        lengths = absolute_lengths(wav_lens, wav.shape[1])
        mask = length_mask(lengths, wav.shape[1])
        valid = wav.masked_fill(~mask.to(wav.device), 0.0)
    for row, peak in enumerate(valid.abs().amax(1).tolist()):
        if not peak < float("inf"):  # NaN compares false
            raise ValueError(
                f"waveform {row} of the batch: expected finite samples; "
                "got NaN or infinity"
            )
        if peak == 0 and not allow_silence:
            raise ValueError(
                f"waveform {row} of the batch: expected sound; all samples "
                "are zero"
            )
