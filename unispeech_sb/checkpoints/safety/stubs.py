"""Names that old checkpoints may hold, and harmless stand-ins for them.

fairseq pickled its dictionaries, options and meters as objects. Each name
below becomes an empty class that keeps what it is given and does nothing;
any name that is not below is refused.
"""

from collections import OrderedDict

DATA_CLASSES = (
    "argparse.Namespace",
    "fairseq.data.dictionary.Dictionary",
    "fairseq.dataclass.constants.Choices",
    # Options that omegaconf pickled with the classes they are made of.
    "fairseq.criterions.ctc.CtcCriterionConfig",
    "fairseq.criterions.wav2vec_criterion.Wav2VecCriterionConfig",
    "fairseq.dataclass.configs.BMUFConfig",
    "fairseq.dataclass.configs.CheckpointConfig",
    "fairseq.dataclass.configs.CheckpointParams",
    "fairseq.dataclass.configs.CommonConfig",
    "fairseq.dataclass.configs.CommonEvalConfig",
    "fairseq.dataclass.configs.CommonEvalParams",
    "fairseq.dataclass.configs.CommonParams",
    "fairseq.dataclass.configs.DatasetConfig",
    "fairseq.dataclass.configs.DatasetParams",
    "fairseq.dataclass.configs.DistributedTrainingConfig",
    "fairseq.dataclass.configs.DistributedTrainingParams",
    "fairseq.dataclass.configs.EvalLMConfig",
    "fairseq.dataclass.configs.EvalLMParams",
    "fairseq.dataclass.configs.FairseqBMUFConfig",
    "fairseq.dataclass.configs.FairseqConfig",
    "fairseq.dataclass.configs.GenerationConfig",
    "fairseq.dataclass.configs.GenerationParams",
    "fairseq.dataclass.configs.InteractiveConfig",
    "fairseq.dataclass.configs.InteractiveParams",
    "fairseq.dataclass.configs.OptimizationConfig",
    "fairseq.dataclass.configs.OptimizationParams",
    "fairseq.logging.meters.AverageMeter",
    "fairseq.logging.meters.StopwatchMeter",
    "fairseq.logging.meters.TimeMeter",
    "fairseq.meters.AverageMeter",  # before 2020
    "fairseq.meters.StopwatchMeter",
    "fairseq.meters.TimeMeter",
    "fairseq.models.hubert.hubert_asr.HubertCtcConfig",
    "fairseq.models.wav2vec.wav2vec2.Wav2Vec2Config",
    "fairseq.models.wav2vec.wav2vec2_asr.Wav2Vec2CtcConfig",
    "fairseq.optim.adam.FairseqAdamConfig",
    "fairseq.tasks.audio_pretraining.AudioPretrainingConfig",
    "fairseq.tasks.hubert_pretraining.HubertPretrainingConfig",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.nodes.AnyNode",
    "omegaconf.nodes.BooleanNode",
    "omegaconf.nodes.EnumNode",
    "omegaconf.nodes.FloatNode",
    "omegaconf.nodes.IntegerNode",
    "omegaconf.nodes.StringNode",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.PurePosixPath",
    "pathlib.WindowsPath",
    # as Python 3.13 writes them
    "pathlib._local.Path",
    "pathlib._local.PosixPath",
    "pathlib._local.PurePosixPath",
    "pathlib._local.WindowsPath",
    "numpy.dtype",
    "numpy.ndarray",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    # omegaconf notes the types of its nodes.
    "builtins.bool",
    "builtins.dict",
    "builtins.float",
    "builtins.int",
    "builtins.list",
    "builtins.object",
    "builtins.str",
    "builtins.tuple",
    "typing.Any",
    "typing.Dict",
    "typing.List",
    "typing.Optional",
    "typing.Tuple",
    "typing.Union",
)
"""Name in a pickle that becomes a ``Stub``."""

MAPPINGS = (
    "collections.defaultdict",
    "fairseq.logging.meters.MetersDict",
)
"""Name in a pickle that becomes a plain, empty ``OrderedDict``."""

MOST_DEPTH, MOST_ITEMS = 50, 1_000_000


class Stub:
    """Keeps what a pickle says about an object, as ``arguments`` and ``state``,
    and does nothing."""

    name = ""

    def __new__(cls, *arguments):
        stub = super().__new__(cls)
        stub.arguments, stub.state = arguments, None
        return stub

    def __init__(self, *arguments):
        pass  # a pickle may make it without calling this

    def __setstate__(self, state):
        self.state = state


STUBS = {name: type("Stub", (Stub,), {"name": name}) for name in DATA_CLASSES}
"""Name -> its own subclass of ``Stub``."""


def empty_mapping(*arguments):
    """Stands for the class of a mapping; the pickle fills it afterwards.

    What it would be made of is left out: a factory of default values, for
    instance.
    """
    return OrderedDict()


def plain(value):
    """Turns stubs of options into plain data.

    ``Namespace`` and omegaconf's containers become dicts and lists,
    omegaconf's nodes their values, tensors and other stubs their names. What
    is nested too deeply or too often is a ``ValueError``.
    """
    return _Plain().view(value, 0)


class _Plain:
    """Counts the items that one call of ``plain`` has seen."""

    def __init__(self):
        self.items = 0

    def view(self, value, depth):
        """Plain data of a value at a depth."""
        self.items += 1
        if depth > MOST_DEPTH or self.items > MOST_ITEMS:
            raise ValueError(
                f"expected options at most {MOST_DEPTH} levels deep and "
                f"{MOST_ITEMS} in all; got more"
            )
        value = _content(value)
        if isinstance(value, dict):
            return {
                key if isinstance(key, (str, int)) else f"{_content(key)}":
                self.view(item, depth + 1)
                for key, item in value.items()
            }  # fmt: skip
        if isinstance(value, (list, tuple)):
            return [self.view(item, depth + 1) for item in value]
        if value is None or isinstance(value, (str, bytes, int, float)):
            return value
        return type(value).__name__


def _content(value):
    """What a stub stands for; anything else as it is."""
    if isinstance(value, type) and issubclass(value, Stub):
        return value.name
    if not isinstance(value, Stub):
        return value
    state = value.state if isinstance(value.state, dict) else {}
    if value.name == "argparse.Namespace":
        return state
    if value.name.startswith("omegaconf."):
        for key in ("_content", "_val"):
            if key in state:
                return _content(state[key])
    if value.name.startswith("pathlib."):
        parts = [str(part) for part in value.arguments]
        return "/".join(parts).replace("//", "/")
    if value.name.endswith(".Choices") and len(value.arguments) == 1:
        return value.arguments[0]
    return value.name
