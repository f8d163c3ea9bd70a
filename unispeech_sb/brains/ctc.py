"""Connectionist temporal classification of letters, phones or tags (Graves et
al. 2006; UniSpeech, section 3.3)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from speechbrain import Stage
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.decoders.ctc import ctc_greedy_decode
from speechbrain.utils.checkpoints import Checkpoint
from speechbrain.utils.logger import get_logger
from speechbrain.utils.metric_stats import ErrorRateStats

from unispeech_sb.atomic import atomic
from unispeech_sb.brains.core import SSLBrain
from unispeech_sb.brains.export import export_asr
from unispeech_sb.metrics.slots import slot_type_f1, slot_value_cer
from unispeech_sb.nnet.ctc import blank_share, frames_needed
from unispeech_sb.text import find_slots

logger = get_logger(__name__)


class CTCBrain(SSLBrain):
    """Speech recognition by connectionist temporal classification.

    Batches have ``id``, ``sig``, ``text`` and ``tokens`` (int64, [B, U]).
    ``hparams`` names, beside what ``SSLBrain`` reads:

    * ``modules["head"]``: features, relative frame lengths -> logits
      [B, T, V].
    * ``compute_cost``: ``nnet.ctc.ctc_loss``, with its options.
    * ``tokenizer``: a ``CTCTokenizer``. Where its tokens are separated by
      spaces, they are phones, and the score is their error rate, PER; else
      there are WER and CER. All are in percent.
    * ``beam_search: True`` decodes the test set by ``test_searcher``: keywords
      tokenizer and vocab_list -> a searcher of SpeechBrain's CTC interface.
      Else, and in validations, decoding is greedy.

    ``blanks`` is the share of frames in which blank is likeliest: near 1 for
    long means that a model has not begun to learn.

    Example
    -------
    >>> import torch
    >>> from types import SimpleNamespace
    >>> from unispeech_sb.dataio.tokenizers import CTCTokenizer
    >>> tokenizer = CTCTokenizer.from_texts(["a b"])
    >>> brain = CTCBrain(
    ...     hparams={"tokenizer": tokenizer}, run_opts={"device": "cpu"}
    ... )
    >>> brain.on_stage_start(Stage.VALID)
    >>> scores = torch.eye(len(tokenizer))[None, tokenizer.encode("a b")]
    >>> batch = SimpleNamespace(id=["x"], text=["a b"])
    >>> brain.score(scores, torch.ones(1), batch)
    >>> brain.stage_scores(Stage.VALID)
    {'WER': 0.0, 'CER': 0.0, 'blanks': 0.0}
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.named_short: set[str] = set()

    def compute_forward(
        self, batch: PaddedBatch, stage: Stage
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``sig`` to logits, [B, T, V], and the valid shares of T, [B]."""
        feats, frame_lens = self.compute_features(batch, stage)
        return self.modules.head(feats, frame_lens), frame_lens

    def compute_objectives(
        self,
        predictions: tuple[torch.Tensor, torch.Tensor],
        batch: PaddedBatch,
        stage: Stage,
    ) -> torch.Tensor:
        """Loss of logits and ``tokens``; after training also the errors."""
        logits, frame_lens = predictions
        tokens, token_lens = batch.to(self.device).tokens
        lengths = (token_lens * tokens.size(1)).round().long()
        augmentation = getattr(self.hparams, "augmentation", None)
        if stage == Stage.TRAIN and augmentation is not None:
            tokens, lengths = augmentation.replicate_multiple_labels(
                tokens, lengths
            )
        frames = (frame_lens * logits.size(1)).round().long()
        blank = self.hparams.tokenizer.blank_index
        needed = frames_needed(tokens, lengths, blank)
        self._name_short(batch.id, frames.tolist(), needed.tolist())
        loss = self.hparams.compute_cost(
            logits, tokens, frames, lengths, blank=blank
        )
        if stage != Stage.TRAIN:
            self.score(logits, frame_lens, batch)
        return loss

    def _name_short(self, ids, frames, needed):
        """Log utterances that their text does not fit in, each once."""
        pairs = zip(frames, needed, strict=True)
        for row, (available, least) in enumerate(pairs):
            # An augmentation may have put more copies below the batch
            uid = ids[row % len(ids)]
            if available < least and uid not in self.named_short:
                self.named_short.add(uid)
                logger.warning(
                    f"{uid} is too short for its text: {available} frames, "
                    f"perhaps after augmentation, where {least} are needed"
                )

    def on_stage_start(self, stage: Stage, epoch: int | None = None) -> None:
        """Start with no errors counted."""
        super().on_stage_start(stage, epoch)
        tokenizer, self.searcher = self.hparams.tokenizer, None
        if stage == Stage.TEST and getattr(self.hparams, "beam_search", False):
            names = [tokenizer.ind2lab[i] for i in range(len(tokenizer))]
            self.searcher = self.hparams.test_searcher(
                tokenizer=tokenizer, vocab_list=names
            )
        if tokenizer.separator:
            self.errors = {"PER": ErrorRateStats()}
        else:
            characters = ErrorRateStats(split_tokens=True)
            self.errors = {"WER": ErrorRateStats(), "CER": characters}
        self.num_frames, self.num_blanks = 0, 0.0

    def score(
        self, logits: torch.Tensor, frame_lens: torch.Tensor, batch: PaddedBatch
    ) -> None:
        """Decodes logits, [B, T, V], whose lengths are relative, and counts
        errors against ``text`` and blanks."""
        blank = self.hparams.tokenizer.blank_index
        hypotheses, references = (
            [text.split() for text in texts]
            for texts in (self._decode(logits, frame_lens), batch.text)
        )
        for stats in self.errors.values():
            stats.append(list(batch.id), hypotheses, references)
        frames = (frame_lens * logits.size(1)).round().long()
        total = int(frames.sum())
        self.num_frames += total
        self.num_blanks += total * float(blank_share(logits, frames, blank))

    def _decode(self, logits, frame_lens):
        """Texts of the utterances."""
        if self.searcher is not None:
            found = self.searcher(logits.float().log_softmax(-1), frame_lens)
            return [hypotheses[0].text for hypotheses in found]
        tokenizer = self.hparams.tokenizer
        rows = ctc_greedy_decode(logits, frame_lens, tokenizer.blank_index)
        return [tokenizer.decode(row) for row in rows]

    def stage_scores(self, stage: Stage) -> dict[str, float]:
        """``WER`` and ``CER``, or ``PER``, in percent; ``blanks``, 0 to 1."""
        rates = {n: s.summarize("WER") for n, s in self.errors.items()}
        return {**rates, "blanks": self.num_blanks / max(self.num_frames, 1)}

    def importance(self, checkpoint: Checkpoint) -> tuple[float, ...]:
        """Error rates in their order, then the loss."""
        rates = [checkpoint.meta.get(n) for n in ("WER", "CER", "PER")]
        worst_first = (-rate for rate in rates if rate is not None)
        return (*worst_first, *super().importance(checkpoint))

    def write_report(self, folder: Path) -> None:
        """Write the alignments beside the scores: ``wer.txt`` and so on."""
        super().write_report(folder)
        for name, stats in self.errors.items():
            with atomic(folder / f"{name.lower()}.txt") as file:
                stats.write_stats(file)

    def export(
        self, folder: Path, scores: Mapping[str, float], scored_on: str
    ) -> None:
        """Write the evaluated model as SpeechBrain's EncoderASR."""
        stats = next(iter(self.errors.values()))
        facts = {
            "utterances scored": len(stats.scores),
            "best epoch": self.hparams.epoch_counter.current,
            "optimizer updates": self.optimizer_step,
            "decoded": "greedily" if self.searcher is None else "by search",
        }
        export_asr(folder, self.hparams, scores, scored_on, facts)


class SlotBrain(CTCBrain):
    """Slot filling by connectionist temporal classification (Yang et al. 2021).

    Texts have tags, as in ``PLAY B-artist QUEEN E-artist``, and the tokenizer
    is ``CTCTokenizer.from_slots``. WER and CER are of the texts with tags. The
    best checkpoint is that of the highest ``slot_type_f1``; of equal ones that
    of the lowest ``slot_value_cer``.

    Example
    -------
    >>> import torch
    >>> from types import SimpleNamespace
    >>> from unispeech_sb.dataio.tokenizers import CTCTokenizer
    >>> text = "B-artist ABBA E-artist"
    >>> tokenizer = CTCTokenizer.from_slots([text])
    >>> brain = SlotBrain(
    ...     hparams={"tokenizer": tokenizer}, run_opts={"device": "cpu"}
    ... )
    >>> brain.on_stage_start(Stage.VALID)
    >>> frames = [*tokenizer.encode("B-artist AB"), 0, *tokenizer.encode("BA")]
    >>> scores = torch.eye(len(tokenizer))[None, frames]
    >>> brain.score(
    ...     scores, torch.ones(1), SimpleNamespace(id=["x"], text=[text])
    ... )
    >>> brain.slot_texts()
    [('x', 'B-artist ABBA E-artist', 'B-artist ABBA')]
    >>> brain.stage_scores(Stage.VALID)["slot_type_f1"]
    0.0
    """

    def slot_texts(self) -> list[tuple[str, str, str]]:
        """Name, reference and hypothesis of each utterance scored."""
        return [
            (
                row["key"],
                *(" ".join(row[k]) for k in ("ref_tokens", "hyp_tokens")),
            )
            for row in self.errors["WER"].scores
        ]

    def stage_scores(self, stage: Stage) -> dict[str, float]:
        """``slot_type_f1`` and ``slot_value_cer``, shares, before the rest; the
        second only where there is a slot."""
        _, references, hypotheses = zip(*self.slot_texts(), strict=True)
        scores = {"slot_type_f1": slot_type_f1(references, hypotheses)}
        if any(map(find_slots, references)):
            scores["slot_value_cer"] = slot_value_cer(references, hypotheses)
        return {**scores, **super().stage_scores(stage)}

    def importance(self, checkpoint: Checkpoint) -> tuple[float, ...]:
        """F1 score of the slots, then the errors in their values."""
        meta = checkpoint.meta
        errors = meta.get("slot_value_cer", 0.0)
        return (meta["slot_type_f1"], -errors, *super().importance(checkpoint))

    def write_report(self, folder: Path) -> None:
        """Write the texts beside the scores, as SUPERB's leaderboard takes
        them: ``test-hyp.ark`` and ``test-ref.ark``."""
        super().write_report(folder)
        for place, name in ((1, "ref"), (2, "hyp")):
            with atomic(folder / f"test-{name}.ark") as file:
                for row in self.slot_texts():
                    file.write(f"{row[0]} {row[place]}\n")
