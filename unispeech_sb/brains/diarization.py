"""Who speaks when, learnt without an order of the speakers (Fujita et al.
2019; with voices, Kinoshita et al. 2021).
"""

import json

import numpy as np
import torch
from speechbrain import Stage

from unispeech_sb.brains.base import SSLBrain
from unispeech_sb.brains.decisions import (
    Decision,
    Piece,
    compare_decisions,
    found_segments,
    joined,
    score_pieces,
    within,
)
from unispeech_sb.brains.exporting import export_diarization
from unispeech_sb.checkpoints.files import write_tensors
from unispeech_sb.nnet.eend import speaker_loss, speaker_means
from unispeech_sb.nnet.lengths import absolute_lengths, length_mask


class DiarizationBrain(SSLBrain):
    """Speaker diarization.

    Batches have ``id``, ``sig``, ``activity`` (1 where a speaker is active,
    [T, S]), ``speaker_labels`` (index of each among the speakers of the
    training, -1 for none, [S]) and, in validation and test, ``recording`` and
    ``start_s``, where in it the item begins. ``hparams`` names, beside what
    ``SSLBrain`` reads:

    * ``modules["head"]``: features, cut to the labels or with their last
      frame repeated, and relative frame lengths -> logits, [B, T, S]. With
      ``speaker_loss_weight`` it is an ``EENDVCHead``, which is told the number
      of frames and gives speaker vectors, too.
    * ``compute_cost``: logits, labels, number of frames -> loss, and which
      speaker each output was taken for; ``pit_loss``.
    * ``references``: Stage -> recording -> segments (start, end, speaker);
      ``uems``: the same of stretches to score, where there are any.
    * ``frame_s``, ``min_speech_s``, ``min_pause_s``, ``thresholds`` and
      ``median_filters``: how activities become speakers.
    * ``protocol``: ``clean`` chooses threshold and median filter on the
      validation set, keeps them with the checkpoint, and takes the lowest
      error rate for the best. ``superb`` takes the highest accuracy of
      frames, puts the pieces of a recording together, and reports the
      decision that is the best on the test set.
    * ``write_rttm``: path, recording -> segments.

    Scores, over all scored time, overlapped speech included: ``DER``, of
    which ``miss``, ``false alarm`` and ``confusion``, and in a test ``JER``,
    all in percent, and ``speakers off``, the mean error of the number of
    speakers. ``accuracy`` of the frames of all speakers, the mean over pieces.

    Example
    -------
    >>> brain = DiarizationBrain(
    ...     hparams={
    ...         "protocol": "clean",
    ...         "frame_s": 0.5,
    ...         "min_speech_s": 0.0,
    ...         "min_pause_s": 0.0,
    ...         "thresholds": [0.3, 0.5],
    ...         "median_filters": [1],
    ...     },
    ...     run_opts={"device": "cpu"},
    ... )
    >>> brain.on_stage_start(Stage.VALID)
    >>> found = np.array([[0.9], [0.4]])
    >>> said = [(0.0, 0.5, "ann")]
    >>> brain.pieces = [Piece("a", "a", 0.0, found, said, None)]
    >>> brain.accuracies = [1.0]
    >>> brain.decide(Stage.VALID)
    >>> brain.stage_scores(Stage.VALID)["DER"], brain.decision.threshold
    (0.0, 0.5)
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.decision, self.comparison = Decision(), {}
        self.pieces, self.accuracies = [], []
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable(
                "decision",
                self,
                custom_save_hook=lambda brain, path: brain.decision.save(path),
                custom_load_hook=_load_decision,
            )

    def compute_forward(self, batch, stage):
        """Waveforms to activities, and to speaker vectors if the head has
        them.

        Arguments
        ---------
        batch : PaddedBatch
            With ``sig`` and ``activity``.
        stage : Stage
            Stage of the experiment.

        Returns
        -------
        logits : torch.Tensor
            [B, T, S].
        vectors : torch.Tensor or None
            [B, T, S, E].
        """
        feats, frame_lens = self.compute_features(batch, stage)
        num_frames = _num_frames(batch)
        if self._has_vectors:
            return self.modules.head(feats, frame_lens, num_frames)
        counts = absolute_lengths(frame_lens, feats.shape[-2])
        if not torch.equal(counts, num_frames):
            feats = _fitted(feats, counts, num_frames)
        return self.modules.head(feats, batch.activity.lengths), None

    @property
    def _has_vectors(self):
        """Whether the head tells voices, too."""
        weight = getattr(self.hparams, "speaker_loss_weight", None)
        return weight is not None

    def compute_objectives(self, predictions, batch, stage):
        """Loss, and the activities of a validation or test.

        Arguments
        ---------
        predictions : tuple
            Logits, [B, T, S], and vectors, [B, T, S, E], or None.
        batch : PaddedBatch
            With ``activity`` and what the class names.
        stage : Stage
            Stage of the experiment.

        Returns
        -------
        torch.Tensor
            Loss of the batch.
        """
        logits, vectors = predictions
        labels = batch.to(self.device).activity.data
        num_frames = _num_frames(batch)
        loss, order = self.hparams.compute_cost(logits, labels, num_frames)
        if vectors is not None:
            head = self.hparams.head
            loss = loss + self.hparams.speaker_loss_weight * speaker_loss(
                speaker_means(logits.float(), vectors.float(), num_frames),
                batch.speaker_labels.data.gather(1, order),
                head.embed.weight,
                head.alpha,
                head.beta,
            )
        if stage != Stage.TRAIN:
            right = _accuracies(logits, labels, num_frames, order)
            if self.hparams.protocol == "superb":
                right = right * labels.flatten(1).any(1)
            self.accuracies += right.tolist()
            self.listen(logits, num_frames, batch, stage)
        return loss

    def listen(self, logits, num_frames, batch, stage):
        """Notes the activities of a batch, to be scored at the stage's end.

        Arguments
        ---------
        logits : torch.Tensor
            [B, T, S].
        num_frames : torch.Tensor
            Valid ones of each row, [B].
        batch : PaddedBatch
            With ``id``, ``recording`` and ``start_s``.
        stage : Stage
            VALID or TEST.

        Raises
        ------
        ValueError
            When nothing is known of a recording's speakers.
        """
        rows = logits.float().sigmoid().cpu().numpy()
        whole = self.hparams.protocol == "superb"
        references = self.hparams.references[stage]
        uems = getattr(self.hparams, "uems", {}).get(stage, {})
        items = zip(batch.id, batch.recording, batch.start_s, strict=True)
        for row, (name, recording, start_s) in enumerate(items):
            if recording not in references:
                raise ValueError(
                    f"{name}: expected a reference of the recording "
                    f"{recording!r}; there is none"
                )
            start_s, uem = float(start_s), uems.get(recording)
            activities = rows[row, : num_frames[row]]
            if not whole:
                stop_s = start_s + len(activities) * self.hparams.frame_s
                uem = within(uem, start_s, stop_s)
            self.pieces.append(
                Piece(
                    str(name),
                    recording,
                    start_s,
                    activities,
                    references[recording],
                    uem,
                )  # fmt: skip
            )

    def on_stage_start(self, stage, epoch=None):
        """Start with nothing listened to.

        Arguments
        ---------
        stage : Stage
            Stage of the experiment.
        epoch : int, optional
            Epoch, from 1; none in a test.
        """
        super().on_stage_start(stage, epoch)
        self.pieces, self.accuracies, self.comparison = [], [], {}

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Decide before the base scores, logs and saves.

        Arguments
        ---------
        stage : Stage
            Stage that has ended.
        stage_loss : float
            Mean loss per item.
        epoch : int, optional
            Epoch, from 1; none in a test.
        """
        if stage != Stage.TRAIN:
            self.decide(stage)
        super().on_stage_end(stage, stage_loss, epoch)

    def decide(self, stage):
        """Chooses threshold and median filter, where the protocol does.

        Arguments
        ---------
        stage : Stage
            VALID or TEST.
        """
        superb = self.hparams.protocol == "superb"
        if superb:
            self.pieces = joined(self.pieces)
        if stage != (Stage.TEST if superb else Stage.VALID):
            return
        self.comparison = compare_decisions(
            self.pieces,
            self.hparams.thresholds,
            self.hparams.median_filters,
            **self._options,
        )
        self.decision = next(iter(self.comparison))

    @property
    def _options(self):
        """What is fixed of a decision."""
        names = ("frame_s", "min_speech_s", "min_pause_s")
        return {name: getattr(self.hparams, name) for name in names}

    def stage_scores(self, stage):
        """Error rates, the decision they are of, and the accuracy of frames.

        Arguments
        ---------
        stage : Stage
            VALID or TEST.

        Returns
        -------
        dict
            Name -> float; in a test of SUPERB's protocol also the DER of
            every decision that was compared.
        """
        test = stage == Stage.TEST
        scores = score_pieces(
            self.pieces, self.decision, thorough=test, **self._options
        )
        scores |= {"accuracy": float(np.mean(self.accuracies))}
        scores |= self.decision._asdict()
        if test and self.hparams.protocol == "superb":
            scores |= {
                f"DER at {d.threshold:g}, median {d.median_filter}": 100
                * errors.rate
                for d, errors in self.comparison.items()
            }
        return scores

    def importance(self, checkpoint):
        """The lowest DER, or SUPERB's highest accuracy; then the loss.

        Arguments
        ---------
        checkpoint : speechbrain.utils.checkpoints.Checkpoint
            With the scores of its validation in ``meta``.

        Returns
        -------
        tuple
            Sort key, the highest is the best.
        """
        if self.hparams.protocol == "superb":
            first = checkpoint.meta.get("accuracy", 0.0)
        else:
            first = -checkpoint.meta.get("DER", np.inf)
        return (first, *super().importance(checkpoint))

    def write_report(self, folder):
        """Write scores.json, hypotheses.rttm, and activities.safetensors:
        the probabilities of each piece, with the seconds of a frame and where
        in which recording the piece begins.

        Arguments
        ---------
        folder : pathlib.Path
            The experiment's folder.
        """
        super().write_report(folder)
        places, found = {}, {}
        for piece in self.pieces:
            places[piece.name] = [piece.recording, piece.start_s]
            segments = found_segments(piece, self.decision, **self._options)
            found.setdefault(piece.recording, []).extend(segments)
        self.hparams.write_rttm(folder / "hypotheses.rttm", found)
        notes = {"frame_s": self.hparams.frame_s, "pieces": places}
        write_tensors(
            folder / "activities.safetensors",
            {p.name: torch.from_numpy(p.activities) for p in self.pieces},
            {name: json.dumps(note) for name, note in notes.items()},
        )

    def export(self, folder, scores, scored_on):
        """Write the evaluated model for ``SpeakerDiarization``.

        Arguments
        ---------
        folder : pathlib.Path
            The folder to make, or to replace.
        scores : dict
            What it scored: name -> number.
        scored_on : str
            The split: ``test``, or ``valid`` where there is no test set.
        """
        facts = {
            "recordings scored": len({p.recording for p in self.pieces}),
            "best epoch": self.hparams.epoch_counter.current,
            "optimizer updates": self.optimizer_step,
        }
        export_diarization(
            folder, self.hparams, self.decision, scores, scored_on, facts
        )


def _num_frames(batch):
    """Number of labelled frames of each row, [B]."""
    activity = batch.activity
    return absolute_lengths(activity.lengths, activity.data.shape[1])


def _fitted(feats, counts, wanted):
    """Features of as many frames as are wanted: the further ones cut off, the
    last one repeated. [..., B, T', D]."""
    frames = torch.arange(int(wanted.max()), device=feats.device)
    places = torch.minimum(frames, counts[:, None] - 1)  # [B, T']
    rows = torch.arange(len(places), device=feats.device)[:, None]
    return feats[..., rows, places, :]


def _accuracies(logits, labels, num_frames, order):
    """Share of right decisions at 0.5, over frames and speakers, [B]."""
    taken = labels.gather(2, order[:, None].expand_as(labels))
    right = ((logits > 0) == (taken > 0.5)).float().mean(2)
    mask = length_mask(num_frames, logits.shape[1])
    return (right * mask).sum(1) / num_frames.clamp(min=1)


def _load_decision(brain, path, end_of_epoch):
    """Recovers a Brain's decision."""
    brain.decision = Decision.read(path)
