"""Old names that keep working: modules and classes that have moved.

Exported folders, yamls and scripts of earlier versions name what they use by
its full path. ``MOVED`` is the one list of paths that have changed; importing
an old module gives a stand-in that finds each name where it is now.
"""

import sys
import warnings
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from operator import attrgetter

_TABLE = """
brains.base brains.core
brains.checkpoints brains.core
brains.decisions:Decision nnet.binarize:BinarizeConfig
brains.decisions:Piece brains.diarization:Chunk
brains.exporting brains.export
brains.resuming:ResumingBrain brains.core:SSLBrain
brains.updates:UpdatingBrain brains.core:SSLBrain
brains.utterance brains.classification
checkpoints.downstream
checkpoints.downstream.authors checkpoints.authors
checkpoints.downstream.s3prl checkpoints.s3prl
checkpoints.downstream.upstream:named_tensors checkpoints.checkpoint
checkpoints.downstream.upstream:shape_of checkpoints.checkpoint
checkpoints.downstream.upstream:measured checkpoints.checkpoint
checkpoints.downstream.upstream:check_agreement checkpoints.checkpoint
checkpoints.downstream.upstream:Upstream checkpoints.fairseq.tensors
checkpoints.downstream.upstream:read_upstream checkpoints.fairseq.tensors
checkpoints.fairseq.config checkpoints.fairseq.options
checkpoints.fairseq.dictionary checkpoints.fairseq.options
checkpoints.fairseq.heads checkpoints.fairseq.reader
checkpoints.fairseq.literals checkpoints.fairseq.options
checkpoints.fairseq.names checkpoints.fairseq.tensors
checkpoints.fairseq.sizes checkpoints.fairseq.tensors
checkpoints.folder checkpoints.pretrained_folder
checkpoints.keys:FAMILIES checkpoints.options
checkpoints.keys:CLASSES checkpoints.huggingface
checkpoints.keys:CONV checkpoints.huggingface
checkpoints.keys:WEIGHT_NORM checkpoints.huggingface
checkpoints.keys:rename checkpoints.huggingface
checkpoints.keys:split_heads checkpoints.huggingface
checkpoints.keys:join_heads checkpoints.huggingface
checkpoints.keys:split_backbone checkpoints.huggingface
checkpoints.keys:HEADS checkpoints.huggingface:HEAD_TENSORS
checkpoints.pretrained checkpoints.pretrained_folder
checkpoints.safety.archives checkpoints.safety.pickles
checkpoints.safety.limits checkpoints.options
commands.trial_report commands.score
convert.vocabulary convert.tokenizers
dataio.alignments dataio.units
dataio.annotation_files dataio.rttm
dataio.annotation_lines dataio.rttm
dataio.annotations dataio.rttm
dataio.batches dataio.samplers
dataio.corpora.aligned dataio.corpora.synthetic
dataio.corpora.fairseq_manifests dataio.corpora.fairseq
dataio.corpora.fairseq_units dataio.corpora.fairseq
dataio.corpora.lexicon dataio.corpora.phones
dataio.corpora.phonetic:phone_vocabulary dataio.corpora.phones
dataio.corpora.phonetic:phonetic_speech dataio.corpora.phones:phone_records
dataio.corpora.table:table dataio.corpora.csv_table:csv_table
dataio.corpora.unlabelled:unlabelled_speech \
dataio.pretraining:unlabelled_records
dataio.mixture_sets dataio.simulation
dataio.mixtures dataio.simulation
dataio.phones:superb_tokenizer dataio.tokenizers:CTCTokenizer.superb_phones
dataio.splits:hold_out dataio.speakers:split_speakers
dataio.splits:take_share dataio.speakers:split_share
dataio.splits:take_tails dataio.speakers:split_tails
dataio.splits:with_valid dataio.speakers:split_valid
dataio.tokenizers.huggingface dataio.tokenizers.ctc
dataio.tokenizers.pieces dataio.tokenizers.sentencepiece
dataio.trial_sets dataio.trials
dataio.unit_clusters dataio.unit_clustering
dataio.unit_features dataio.unit_clustering
dataio.unit_shards dataio.unit_clustering
decoding.alignment decoding.search
decoding.hot_words decoding.scoring
decoding.language_model decoding.scoring
decoding.searcher decoding.search
decoding.spelling:Spelling decoding.words:TokenToWordMapping
inference.collecting:VoiceStore inference.embedding_store:ResumableExtractor
inference.collecting:model_id inference.embedding_store
inference.commands:positive commands.options
inference.commands:probability commands.options
inference.commands:at_least commands.options
inference.commands:add_device commands.options
inference.commands:load_folder commands.options
inference.commands:progress_bar commands.options
inference.commands:tell_failures commands.options:report_failures
inference.diarize:main commands.diarize:diarize
inference.diarized:Diarization inference.segments
inference.diarized:recording_name inference.formats
inference.embed:main commands.speakers:embed
inference.encoding:Stretch inference.window_encoder:Chunk
inference.encoding:WindowEncoder inference.window_encoder
inference.gallery:Gallery inference.embedding_store:EmbeddingStore
inference.gallery:Match inference.embedding_store
inference.global_norm inference.audio_blocks
inference.languages inference.asr
inference.local_speakers:LocalSpeakers inference.diarization:LocalSegmentation
inference.local_speakers:LocalSpeakerModel \
inference.diarization:LocalSegmentationModel
inference.moving:Moves inference.sliding_window:SlidingWindow
inference.moving:moves_over inference.sliding_window:SlidingWindow.offline
inference.moving:moves_within inference.sliding_window:SlidingWindow.online
inference.moving:checked_blocks inference.audio_blocks:check_blocks
inference.recordings inference.audio_blocks
inference.results commands.score
inference.score:main commands.score:score
inference.speakers inference.speaker_verification
inference.statistics:Moments inference.audio_blocks:GlobalStatistics
inference.statistics:statistics_of_whole inference.audio_blocks:global_norm
inference.stitching inference.clustering
inference.switching:SwitchableASR inference.asr:LongFormASR
inference.timeline plots
inference.transcribe:main commands.transcribe:transcribe
inference.tune_lm:main commands.transcribe:tune_lm
inference.turns:Smoothing nnet.binarize:BinarizeConfig
inference.turns:SpeakerNames inference.segments
inference.turns:Turn inference.segments
inference.turns:TurnFinder inference.segments:Binarizer
inference.verify:main commands.speakers:verify
inference.voices:Decision inference.speaker_verification
inference.voices:MeanVoice inference.speaker_verification:EmbeddingAverager
inference.voices:Voice inference.speaker_verification:SpeakerEmbedding
inference.voices:cosine inference.speaker_verification
inference.voices:pair_quality inference.speaker_verification
inference.windows inference.sliding_window
lobes.heads.ecapa lobes.heads
lobes.heads.frame lobes.heads
lobes.heads.margins lobes.heads.speaker
lobes.heads.pretraining_sat lobes.heads.pretraining
lobes.heads.recurrent lobes.heads
lobes.heads.serving lobes.heads
lobes.heads.statistics lobes.heads
lobes.heads.utterance lobes.heads
lobes.pretraining.continuing lobes.pretraining
metrics.abx metrics.phones
metrics.bootstrap metrics.verification
metrics.cllr metrics.calibration
metrics.logistic metrics.calibration
metrics.normalization metrics.verification
metrics.quality metrics.calibration
metrics.units metrics.phones
nnet.activations nnet.frontend
nnet.activities:activity_segments nnet.binarize:binarize
nnet.activities:smoothed nnet.binarize
nnet.adapter nnet.transformer
nnet.context nnet.pooling
nnet.gradients:touch nnet.transformer:keep_in_graph
nnet.instance_norm nnet.pooling
nnet.negatives nnet.contrastive
nnet.spec_augment nnet.masking
"""
"""Old module and the module that has its names now; where names went different
ways or have changed, ``module:name`` and the new module, with ``:name`` if that
has changed. All are below this package; a module that only has others below it
stands alone."""


def _read(table):
    """Reads the table: full old module -> full new one, or, where its names
    went different ways, a dict of old name -> ``module:name``."""
    moved = {
        "speechbrain.lobes.models.unispeech": "unispeech_sb.lobes.unispeech"
    }
    for line in table.strip().splitlines():
        old, _, new = line.partition(" ")
        module, _, name = f"unispeech_sb.{old}".partition(":")
        if name:
            new = new if ":" in new else f"{new}:{name}"
            moved.setdefault(module, {})[name] = f"unispeech_sb.{new}"
        else:
            moved[module] = f"unispeech_sb.{new}" if new else {}
    return moved


MOVED: dict[str, str | dict[str, str]] = _read(_TABLE)
"""Full path of an old module -> that of the new one, or old name -> new."""

QUIET = {"speechbrain.lobes.models.unispeech"}
"""Modules that are not deprecated: a second name of what is there."""


def current_name(name: str) -> str:
    """The full path of a class or function as it is now.

    Example
    -------
    >>> current_name("unispeech_sb.lobes.heads.serving.PassThrough")
    'unispeech_sb.lobes.heads.PassThrough'
    """
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        moved, rest = MOVED.get(".".join(parts[:count]), {}), parts[count:]
        if isinstance(moved, str):
            return ".".join([moved, *rest])
        if rest[0] in moved:
            new = moved[rest[0]].replace(":", ".")
            return ".".join([new, *rest[1:]])
    return name


class _MovedFinder(MetaPathFinder, Loader):
    """Finds the modules of ``MOVED``, after all other finders."""

    def find_spec(self, fullname, path=None, target=None):
        """Answers for old names only."""
        if fullname in MOVED:
            return ModuleSpec(fullname, self, is_package=_has_below(fullname))
        return None

    def exec_module(self, module):
        """Gives the stand-in its one function."""
        module.__getattr__ = _forward(module.__name__)


def install() -> None:
    """Makes the old names importable; a second call changes nothing.

    Example
    -------
    >>> install()
    >>> from speechbrain.lobes.models.unispeech import UtteranceHead
    >>> UtteranceHead.__module__.startswith("unispeech_sb.lobes")
    True
    """
    if not any(isinstance(finder, _MovedFinder) for finder in sys.meta_path):
        sys.meta_path.append(_MovedFinder())


def _has_below(name):
    """Whether other old modules are below this one."""
    return any(other.startswith(f"{name}.") for other in MOVED)


def _forward(old):
    """``__getattr__`` of an old module."""

    def find(name):
        new = MOVED.get(old, {})
        if isinstance(new, str):
            new = {name: f"{new}:{name}"}
        if name not in new or name.startswith("__"):
            raise AttributeError(f"module {old} has no attribute {name!r}")
        module, _, new_name = new[name].partition(":")
        found = attrgetter(new_name)(import_module(module))
        if old not in QUIET:
            warnings.warn(
                f"{old}.{name} is now {module}.{new_name}; the old name goes "
                "with the next release",
                DeprecationWarning,
                stacklevel=2,
            )
        return found

    return find
