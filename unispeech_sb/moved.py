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

MOVED = {
    "speechbrain.lobes.models.unispeech": "unispeech_sb.lobes.unispeech",
    "unispeech_sb.brains.base": "unispeech_sb.brains.core",
    "unispeech_sb.brains.checkpoints": "unispeech_sb.brains.core",
    "unispeech_sb.brains.decisions": {
        "Decision": "unispeech_sb.nnet.binarize:BinarizeConfig",
        "Piece": "unispeech_sb.brains.diarization:Chunk",
    },
    "unispeech_sb.brains.exporting": "unispeech_sb.brains.export",
    "unispeech_sb.brains.resuming": {
        "ResumingBrain": "unispeech_sb.brains.core:SSLBrain",
    },
    "unispeech_sb.brains.updates": {
        "UpdatingBrain": "unispeech_sb.brains.core:SSLBrain",
    },
    "unispeech_sb.brains.utterance": "unispeech_sb.brains.classification",
    "unispeech_sb.checkpoints.downstream": {},
    "unispeech_sb.checkpoints.downstream.authors": (
        "unispeech_sb.checkpoints.authors"
    ),
    "unispeech_sb.checkpoints.downstream.s3prl": (
        "unispeech_sb.checkpoints.s3prl"
    ),
    "unispeech_sb.checkpoints.downstream.upstream": {
        **{
            name: f"unispeech_sb.checkpoints.checkpoint:{name}"
            for name in (
                *("named_tensors", "shape_of", "measured"),
                "check_agreement",
            )
        },
        "Upstream": "unispeech_sb.checkpoints.fairseq.tensors:Upstream",
        "read_upstream": (
            "unispeech_sb.checkpoints.fairseq.tensors:read_upstream"
        ),
    },
    "unispeech_sb.checkpoints.fairseq.config": (
        "unispeech_sb.checkpoints.fairseq.options"
    ),
    "unispeech_sb.checkpoints.fairseq.dictionary": (
        "unispeech_sb.checkpoints.fairseq.options"
    ),
    "unispeech_sb.checkpoints.fairseq.heads": (
        "unispeech_sb.checkpoints.fairseq.reader"
    ),
    "unispeech_sb.checkpoints.fairseq.literals": (
        "unispeech_sb.checkpoints.fairseq.options"
    ),
    "unispeech_sb.checkpoints.fairseq.names": (
        "unispeech_sb.checkpoints.fairseq.tensors"
    ),
    "unispeech_sb.checkpoints.fairseq.sizes": (
        "unispeech_sb.checkpoints.fairseq.tensors"
    ),
    "unispeech_sb.checkpoints.folder": (
        "unispeech_sb.checkpoints.pretrained_folder"
    ),
    "unispeech_sb.checkpoints.keys": {
        **{
            name: f"unispeech_sb.checkpoints.huggingface:{name}"
            for name in (
                *("FAMILIES", "CLASSES", "CONV", "WEIGHT_NORM", "rename"),
                *("split_heads", "join_heads", "split_backbone"),
            )
        },
        "HEADS": "unispeech_sb.checkpoints.huggingface:HEAD_TENSORS",
    },
    "unispeech_sb.checkpoints.pretrained": (
        "unispeech_sb.checkpoints.pretrained_folder"
    ),
    "unispeech_sb.checkpoints.safety.archives": (
        "unispeech_sb.checkpoints.safety.pickles"
    ),
    "unispeech_sb.checkpoints.safety.limits": (
        "unispeech_sb.checkpoints.options"
    ),
    "unispeech_sb.commands.trial_report": "unispeech_sb.commands.speakers",
    "unispeech_sb.convert.vocabulary": "unispeech_sb.convert.tokenizers",
    "unispeech_sb.inference.commands": {
        **{
            name: f"unispeech_sb.commands.options:{name}"
            for name in (
                *("positive", "probability", "at_least", "add_device"),
                *("load_folder", "progress_bar"),
            )
        },
        "tell_failures": "unispeech_sb.commands.options:report_failures",
    },
    "unispeech_sb.inference.diarize": {
        "main": "unispeech_sb.commands.diarize:diarize"
    },
    "unispeech_sb.inference.embed": {
        "main": "unispeech_sb.commands.speakers:embed"
    },
    "unispeech_sb.inference.results": "unispeech_sb.commands.speakers",
    "unispeech_sb.inference.score": {
        "main": "unispeech_sb.commands.speakers:score"
    },
    "unispeech_sb.inference.transcribe": {
        "main": "unispeech_sb.commands.transcribe:transcribe"
    },
    "unispeech_sb.inference.tune_lm": {
        "main": "unispeech_sb.commands.transcribe:tune_lm"
    },
    "unispeech_sb.inference.verify": {
        "main": "unispeech_sb.commands.speakers:verify"
    },
    "unispeech_sb.decoding.alignment": "unispeech_sb.decoding.search",
    "unispeech_sb.decoding.hot_words": "unispeech_sb.decoding.scoring",
    "unispeech_sb.decoding.language_model": "unispeech_sb.decoding.scoring",
    "unispeech_sb.decoding.searcher": "unispeech_sb.decoding.search",
    "unispeech_sb.decoding.spelling": {
        "Spelling": "unispeech_sb.decoding.words:TokenToWordMapping",
    },
    "unispeech_sb.lobes.heads.ecapa": "unispeech_sb.lobes.heads",
    "unispeech_sb.lobes.heads.frame": "unispeech_sb.lobes.heads",
    "unispeech_sb.lobes.heads.margins": "unispeech_sb.lobes.heads.speaker",
    "unispeech_sb.lobes.heads.pretraining_sat": (
        "unispeech_sb.lobes.heads.pretraining"
    ),
    "unispeech_sb.lobes.heads.recurrent": "unispeech_sb.lobes.heads",
    "unispeech_sb.lobes.heads.serving": "unispeech_sb.lobes.heads",
    "unispeech_sb.lobes.heads.statistics": "unispeech_sb.lobes.heads",
    "unispeech_sb.lobes.heads.utterance": "unispeech_sb.lobes.heads",
    "unispeech_sb.lobes.pretraining.continuing": (
        "unispeech_sb.lobes.pretraining"
    ),
    "unispeech_sb.metrics.bootstrap": "unispeech_sb.metrics.verification",
    "unispeech_sb.metrics.cllr": "unispeech_sb.metrics.calibration",
    "unispeech_sb.metrics.logistic": "unispeech_sb.metrics.calibration",
    "unispeech_sb.metrics.normalization": "unispeech_sb.metrics.verification",
    "unispeech_sb.metrics.quality": "unispeech_sb.metrics.calibration",
    "unispeech_sb.nnet.activations": "unispeech_sb.nnet.frontend",
    "unispeech_sb.nnet.adapter": "unispeech_sb.nnet.transformer",
    "unispeech_sb.nnet.context": "unispeech_sb.nnet.pooling",
    "unispeech_sb.nnet.gradients": {
        "touch": "unispeech_sb.nnet.transformer:keep_in_graph",
    },
    "unispeech_sb.nnet.instance_norm": "unispeech_sb.nnet.pooling",
    "unispeech_sb.nnet.negatives": "unispeech_sb.nnet.contrastive",
    "unispeech_sb.dataio.annotation_files": "unispeech_sb.dataio.rttm",
    "unispeech_sb.dataio.annotation_lines": "unispeech_sb.dataio.rttm",
    "unispeech_sb.dataio.annotations": "unispeech_sb.dataio.rttm",
    "unispeech_sb.dataio.batches": "unispeech_sb.dataio.samplers",
    "unispeech_sb.dataio.alignments": "unispeech_sb.dataio.units",
    "unispeech_sb.dataio.corpora.aligned": (
        "unispeech_sb.dataio.corpora.synthetic"
    ),
    "unispeech_sb.dataio.corpora.fairseq_manifests": (
        "unispeech_sb.dataio.corpora.fairseq"
    ),
    "unispeech_sb.dataio.corpora.fairseq_units": (
        "unispeech_sb.dataio.corpora.fairseq"
    ),
    "unispeech_sb.dataio.corpora.lexicon": (
        "unispeech_sb.dataio.corpora.phones"
    ),
    "unispeech_sb.dataio.corpora.phonetic": {
        "phone_vocabulary": (
            "unispeech_sb.dataio.corpora.phones:phone_vocabulary"
        ),
        "phonetic_speech": "unispeech_sb.dataio.corpora.phones:phone_records",
    },
    "unispeech_sb.dataio.corpora.table": {
        "table": "unispeech_sb.dataio.corpora.csv_table:csv_table",
    },
    "unispeech_sb.dataio.corpora.unlabelled": {
        "unlabelled_speech": (
            "unispeech_sb.dataio.pretraining:unlabelled_records"
        ),
    },
    "unispeech_sb.dataio.mixture_sets": "unispeech_sb.dataio.simulation",
    "unispeech_sb.dataio.mixtures": "unispeech_sb.dataio.simulation",
    "unispeech_sb.dataio.phones": {
        "superb_tokenizer": (
            "unispeech_sb.dataio.tokenizers:CTCTokenizer.superb_phones"
        ),
    },
    "unispeech_sb.dataio.tokenizers.huggingface": (
        "unispeech_sb.dataio.tokenizers.ctc"
    ),
    "unispeech_sb.dataio.tokenizers.pieces": (
        "unispeech_sb.dataio.tokenizers.sentencepiece"
    ),
    "unispeech_sb.dataio.splits": {
        "hold_out": "unispeech_sb.dataio.speakers:split_speakers",
        "take_share": "unispeech_sb.dataio.speakers:split_share",
        "take_tails": "unispeech_sb.dataio.speakers:split_tails",
        "with_valid": "unispeech_sb.dataio.speakers:split_valid",
    },
    "unispeech_sb.dataio.trial_sets": "unispeech_sb.dataio.trials",
    "unispeech_sb.dataio.unit_clusters": "unispeech_sb.dataio.unit_clustering",
    "unispeech_sb.dataio.unit_features": "unispeech_sb.dataio.unit_clustering",
    "unispeech_sb.dataio.unit_shards": "unispeech_sb.dataio.unit_clustering",
    "unispeech_sb.inference.collecting": {
        "VoiceStore": "unispeech_sb.inference.embedding_store:"
        "ResumableExtractor",
        "model_id": "unispeech_sb.inference.embedding_store:model_id",
    },
    "unispeech_sb.inference.diarized": {
        "Diarization": "unispeech_sb.inference.segments:Diarization",
        "recording_name": "unispeech_sb.inference.formats:recording_name",
    },
    "unispeech_sb.inference.encoding": {
        "Stretch": "unispeech_sb.inference.asr:Chunk",
        "WindowEncoder": "unispeech_sb.inference.asr:WindowEncoder",
    },
    "unispeech_sb.inference.gallery": {
        "Gallery": "unispeech_sb.inference.embedding_store:EmbeddingStore",
        "Match": "unispeech_sb.inference.embedding_store:Match",
    },
    "unispeech_sb.inference.global_norm": "unispeech_sb.inference.audio_blocks",
    "unispeech_sb.inference.languages": "unispeech_sb.inference.asr",
    "unispeech_sb.inference.local_speakers": {
        "LocalSpeakers": "unispeech_sb.inference.diarization:LocalSegmentation",
        "LocalSpeakerModel": "unispeech_sb.inference.diarization:"
        "LocalSegmentationModel",
    },
    "unispeech_sb.inference.moving": {
        "Moves": "unispeech_sb.inference.sliding_window:SlidingWindow",
        "moves_over": (
            "unispeech_sb.inference.sliding_window:SlidingWindow.offline"
        ),
        "moves_within": (
            "unispeech_sb.inference.sliding_window:SlidingWindow.online"
        ),
        "checked_blocks": "unispeech_sb.inference.audio_blocks:check_blocks",
    },
    "unispeech_sb.inference.recordings": "unispeech_sb.inference.audio_blocks",
    "unispeech_sb.inference.speakers": "unispeech_sb.inference."
    "speaker_verification",
    "unispeech_sb.inference.statistics": {
        "Moments": "unispeech_sb.inference.audio_blocks:GlobalStatistics",
        "statistics_of_whole": (
            "unispeech_sb.inference.audio_blocks:global_norm"
        ),
    },
    "unispeech_sb.inference.stitching": "unispeech_sb.inference.clustering",
    "unispeech_sb.inference.switching": {
        "SwitchableASR": "unispeech_sb.inference.asr:LongFormASR",
    },
    "unispeech_sb.inference.timeline": "unispeech_sb.plots",
    "unispeech_sb.inference.turns": {
        "Smoothing": "unispeech_sb.nnet.binarize:BinarizeConfig",
        "SpeakerNames": "unispeech_sb.inference.segments:SpeakerNames",
        "Turn": "unispeech_sb.inference.segments:Turn",
        "TurnFinder": "unispeech_sb.inference.segments:Binarizer",
    },
    "unispeech_sb.inference.voices": {
        "Decision": "unispeech_sb.inference.speaker_verification:Decision",
        "MeanVoice": "unispeech_sb.inference.speaker_verification:"
        "EmbeddingAverager",
        "Voice": "unispeech_sb.inference.speaker_verification:SpeakerEmbedding",
        "cosine": "unispeech_sb.inference.speaker_verification:cosine",
        "pair_quality": "unispeech_sb.inference.speaker_verification:"
        "pair_quality",
    },
    "unispeech_sb.inference.windows": "unispeech_sb.inference.sliding_window",
    "unispeech_sb.nnet.activities": {
        "activity_segments": "unispeech_sb.nnet.binarize:binarize",
        "smoothed": "unispeech_sb.nnet.binarize:smoothed",
    },
}
"""Old module -> the module that has its names now; or, where its names went
different ways or have changed, a dict of old name -> ``module:name``."""

QUIET = {"speechbrain.lobes.models.unispeech"}
"""Modules that are not deprecated: a second name of what is there."""


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
