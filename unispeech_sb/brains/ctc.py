"""One label per frame or none, the rest is CTC: letters, phones (Graves et
al. 2006; UniSpeech, section 3.3)."""

import io
import os

from speechbrain import Stage
from speechbrain.decoders.ctc import ctc_greedy_decode
from speechbrain.utils.metric_stats import ErrorRateStats

from unispeech_sb.brains.base import SSLBrain
from unispeech_sb.brains.exporting import export_asr
from unispeech_sb.nnet.ctc import blank_share


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

    def compute_forward(self, batch, stage):
        """Waveforms to logits.

        Arguments
        ---------
        batch : PaddedBatch
            With ``sig``.
        stage : Stage
            Stage of the experiment.

        Returns
        -------
        logits : torch.Tensor
            [B, T, V].
        frame_lens : torch.Tensor
            Valid share of the T frames, in (0, 1], [B].
        """
        feats, frame_lens = self.compute_features(batch, stage)
        return self.modules.head(feats, frame_lens), frame_lens

    def compute_objectives(self, predictions, batch, stage):
        """Loss, and the errors of a validation or test.

        Arguments
        ---------
        predictions : tuple
            Logits, [B, T, V], and relative frame lengths, [B].
        batch : PaddedBatch
            With ``id``, ``text`` and ``tokens``.
        stage : Stage
            Stage of the experiment.

        Returns
        -------
        torch.Tensor
            Loss of the batch.
        """
        logits, frame_lens = predictions
        tokens, token_lens = batch.to(self.device).tokens
        lengths = (token_lens * tokens.size(1)).round().long()
        augmentation = getattr(self.hparams, "augmentation", None)
        if stage == Stage.TRAIN and augmentation is not None:
            tokens, lengths = augmentation.replicate_multiple_labels(
                tokens, lengths
            )
        frames = (frame_lens * logits.size(1)).round().long()
        loss = self.hparams.compute_cost(
            logits,
            tokens,
            frames,
            lengths,
            blank=self.hparams.tokenizer.blank_index,
        )
        if stage != Stage.TRAIN:
            self.score(logits, frame_lens, batch)
        return loss

    def on_stage_start(self, stage, epoch=None):
        """Start with no errors counted.

        Arguments
        ---------
        stage : Stage
            Stage of the experiment.
        epoch : int, optional
            Epoch, from 1; none in a test.
        """
        super().on_stage_start(stage, epoch)
        if self.hparams.tokenizer.separator:
            self.errors = {"PER": ErrorRateStats()}
        else:
            characters = ErrorRateStats(split_tokens=True)
            self.errors = {"WER": ErrorRateStats(), "CER": characters}
        self.num_frames = self.num_blanks = 0

    def score(self, logits, frame_lens, batch):
        """Decodes greedily and counts errors and blanks.

        Arguments
        ---------
        logits : torch.Tensor
            Scores of the tokens, [B, T, V].
        frame_lens : torch.Tensor
            Valid share of the T frames, in (0, 1], [B].
        batch : PaddedBatch
            With ``id`` and ``text``.
        """
        tokenizer = self.hparams.tokenizer
        blank = tokenizer.blank_index
        indices = ctc_greedy_decode(logits, frame_lens, blank)
        texts = [tokenizer.decode(row) for row in indices]
        heard, said = (
            [text.split() for text in texts],
            [text.split() for text in batch.text],
        )
        for stats in self.errors.values():
            stats.append(list(batch.id), heard, said)
        frames = (frame_lens * logits.size(1)).round().long()
        total = int(frames.sum())
        self.num_frames += total
        self.num_blanks += total * float(blank_share(logits, frames, blank))

    def stage_scores(self, stage):
        """Error rates and the share of blanks.

        Arguments
        ---------
        stage : Stage
            VALID or TEST.

        Returns
        -------
        dict
            ``WER`` and ``CER``, or ``PER``, in percent; ``blanks``, 0 to 1.
        """
        rates = {n: s.summarize("WER") for n, s in self.errors.items()}
        return {**rates, "blanks": self.num_blanks / max(self.num_frames, 1)}

    def importance(self, checkpoint):
        """Error rates in their order, then the loss.

        Arguments
        ---------
        checkpoint : speechbrain.utils.checkpoints.Checkpoint
            With the scores of its validation in ``meta``.

        Returns
        -------
        tuple
            Sort key, the highest is the best.
        """
        rates = [checkpoint.meta.get(n) for n in ("WER", "CER", "PER")]
        worst_first = (-rate for rate in rates if rate is not None)
        return (*worst_first, *super().importance(checkpoint))

    def write_report(self, folder):
        """Write the alignments beside the scores: ``wer.txt`` and so on.

        Arguments
        ---------
        folder : pathlib.Path
            The experiment's folder.
        """
        super().write_report(folder)
        for name, stats in self.errors.items():
            text = io.StringIO()
            stats.write_stats(text)
            file = folder / f"{name.lower()}.txt"
            partial_file = file.with_suffix(".partial")
            partial_file.write_text(text.getvalue(), encoding="utf-8")
            os.replace(partial_file, file)

    def export(self, folder, scores, scored_on):
        """Write the evaluated model as SpeechBrain's EncoderASR.

        Arguments
        ---------
        folder : pathlib.Path
            The folder to make, or to replace.
        scores : dict
            What it scored: name -> number.
        scored_on : str
            The split: ``test``, or ``valid`` where there is no test set.
        """
        stats = next(iter(self.errors.values()))
        facts = {
            "utterances scored": len(stats.scores),
            "best epoch": self.hparams.epoch_counter.current,
            "optimizer updates": self.optimizer_step,
        }
        export_asr(folder, self.hparams, scores, scored_on, facts)
