"""Pretrained folders to interfaces: nothing runs that the lists do not name."""

import os
import pydoc
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar

import torch
from speechbrain.inference.interfaces import Pretrained
from speechbrain.utils.distributed import infer_device
from speechbrain.utils.fetching import (
    FetchConfig,
    FetchSource,
    LocalStrategy,
    fetch,
)
from speechbrain.utils.logger import get_logger
from speechbrain.utils.run_opts import RunOptions

from unispeech_sb.checkpoints.interfaces import (
    FOREIGN,
    INTERFACES,
    PRECISIONS,
    YAML_FILE,
    contents,
    expect_folder,
    folder_kind,
    may_be_converted,
    purpose,
)
from unispeech_sb.checkpoints.safe_yaml import (
    LOBES,
    MODEL,
    Name,
    New,
    Ref,
    read_folder_yaml,
)
from unispeech_sb.convert import converted_folder
from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.environment import ENGINES, require_engine
from unispeech_sb.errors import check_compiler, check_device
from unispeech_sb.inference.audio_blocks import WHOLE, Source, run_sources
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.lobe import build_empty
from unispeech_sb.nnet.precision import (
    can_lower,
    has_bf16_units,
    lower_precision,
)
from unispeech_sb.nnet.transformer import EncoderLayer

logger = get_logger(__name__)

MOST_BYTES = 64 * 2**20
"""Largest file of labels that is read."""

_Interface = TypeVar("_Interface", bound=Pretrained)
_Part = TypeVar("_Part")


def load_interface(
    cls: type[_Interface],
    source: str | Path | FetchSource,
    hparams_file: str = YAML_FILE,
    overrides: str | Mapping[str, Any] | None = None,
    overrides_must_match: bool = True,
    savedir: str | Path | None = None,
    local_strategy: LocalStrategy = LocalStrategy.SYMLINK,
    fetch_config: FetchConfig | None = None,
    **options: Any,
) -> _Interface | None:
    """Loads a folder as SpeechBrain's ``from_hparams``, but its yaml by
    ``read_folder_yaml``; ``options`` go to the constructor.

    Modules are built without weights and take over those of their files, so
    that no size in the yaml is allocated but one that a file has.
    """
    fetching: dict[str, Any] = {"local_strategy": local_strategy}
    fetching["fetch_config"] = fetch_config or FetchConfig()
    download_only = options.pop("download_only", False)
    if isinstance(source, Path):
        source = str(source)
    path = fetch(hparams_file, source, savedir, **fetching)
    if not path.is_file():
        raise ValueError(
            f"{source}: expected a folder with {hparams_file}; "
            + contents(str(source))
        )
    entries = read_folder_yaml(path, overrides, overrides_must_match)
    known = RunOptions().as_dict()
    found = [n for n in entries if n in known and n != "precision"]
    if found:
        raise ValueError(
            f"{path}: expected no option of a run; got {found[0]}: give it as "
            "run_opts"
        )
    modules = entries["modules"]
    missing = [name for name in cls.MODULES_NEEDED if name not in modules]
    if missing or any(hasattr(torch.nn.ModuleDict, name) for name in modules):
        raise ValueError(
            f"{path}: expected modules with names of their own, "
            f"{', '.join(cls.MODULES_NEEDED)} among them; got "
            f"{', '.join(modules)}"
        )
    missing = [name for name in cls.HPARAMS_NEEDED if name not in entries]
    if missing:
        raise ValueError(
            f"{path}: expected {', '.join(cls.HPARAMS_NEEDED)}, which "
            f"{cls.__name__} needs; got no {', '.join(missing)}"
        )
    hparams = _build(entries, path)
    pretrainer = hparams["pretrainer"]
    pretrainer.set_collect_in(savedir)
    pretrainer.collect_files(source, **fetching)
    if download_only:
        return None
    for name, file in pretrainer.paths.items():
        _check_size(file, entries[name].name)
    pretrainer.load_collected()
    hparams["savedir"] = savedir
    return cls(modules=hparams["modules"], hparams=hparams, **options)


def _check_size(path, class_name):
    """Refuses a file of labels, or of a calibration, that is none."""
    if class_name not in (*LOBES, MODEL):
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file")
        size = Path(path).stat().st_size
        if size > MOST_BYTES:
            raise ValueError(
                f"{path}: expected at most {MOST_BYTES} bytes; got {size}"
            )


def load(
    source: str | Path,
    device: str | int | torch.device | None = None,
    trust: bool = False,
    engine: str = "torch",
    precision: str | None = None,
    **options: Any,
) -> "CheckedFolder":
    """Loads any model for inference, by the interface that its folder is for.

    Arguments
    ---------
    source : str or pathlib.Path
        A pretrained folder: the ``export`` of a recipe, or what ``unispeech-sb
        convert`` wrote; a Hugging Face folder or the hub name of a model, which
        is converted once, into ``~/.cache/unispeech_sb``.
    device : str or int or torch.device, optional
        Where the model runs: cpu, cuda, cuda:1, ...; cpu when omitted.
    trust : bool
        As for ``CheckedFolder.from_hparams``.
    engine : str
        As for ``CheckedFolder.use_engine``.
    precision : str, optional
        As for ``CheckedFolder``; fp32 when neither this nor the folder says.
    **options : dict
        For the constructor of the interface.

    Returns
    -------
    CheckedFolder
        ``LongFormASR``, ``SpeakerDiarization``, ``SpeakerVerification``,
        ``SpeechFeatures`` or ``UtteranceClassifier``, in evaluation mode.
        Calling it does its task.

    Raises
    ------
    ValueError
        When no interface loads the folder.

    Example
    -------
    >>> load("nowhere")
    Traceback (most recent call last):
    ...
    ValueError: nowhere: expected a folder with hyperparams.yaml, a Hugging ...
    """
    if not isinstance(source, (str, os.PathLike)):
        raise ValueError(
            f"expected a folder or the hub name of a model; got {source!r:.60}"
        )
    check_device(device)
    folder = converted_folder(source) if may_be_converted(source) else source
    kind = folder_kind(folder)
    if kind not in INTERFACES or not INTERFACES[kind].ours:
        found = purpose(folder, kind) if kind not in ("", FOREIGN) else ""
        if kind == FOREIGN:
            found = (
                f"its {YAML_FILE} names nothing of this package: use "
                "SpeechBrain's interfaces, or copy it again if it is cut short"
            )
        raise ValueError(
            f"{source}: expected a folder with {YAML_FILE}, a Hugging Face "
            f"folder or the hub name of a model; {found or contents(folder)}"
        )
    interface: Any = pydoc.locate(INTERFACES[kind].ours)
    run_opts = {"device": device, **options.pop("run_opts", {})}
    model = interface.from_hparams(
        str(folder),
        fetch_config=FetchConfig(allow_network=False),
        run_opts={name: value for name, value in run_opts.items() if value},
        trust=trust,
        engine=engine,
        precision=precision,
        **options,
    )
    return model.eval()


def choose_precision(name: str, device_type: str) -> str:
    """Settles a precision for a device, or refuses it.

    Arguments
    ---------
    name : str
        A key of ``PRECISIONS``.
    device_type : str
        cpu, cuda, ...

    Returns
    -------
    str
        The same, but for auto, which becomes bf16 or fp32.

    Raises
    ------
    ValueError
        When there is no such precision, or not on the device.
    """
    on_cpu = device_type == "cpu"
    known = [n for n in PRECISIONS if n != ("fp16" if on_cpu else "int8")]
    if name not in known:
        raise ValueError(
            f"precision: expected {', '.join(known[:-1])} or {known[-1]} on "
            f"the device {device_type}; got {name!r}"
        )
    if name == "auto":
        has_units = has_bf16_units(device_type)
        name = "bf16" if has_units else "fp32"
        logger.info(
            f"precision: {name}, as this {device_type} has "
            f"{'' if has_units else 'no '}units for bfloat16"
        )
    if name == "int8" and not can_lower(name):
        raise ValueError(
            "precision: expected a CPU and a torch with 8-bit products of "
            "oneDNN for int8; these have none"
        )
    return name


class CheckedFolder(Pretrained):
    """An interface that runs no code of its folder, and does its task when it
    is called.

    Called with a file or a waveform, it gives the result of that; called with
    several, a list of results in their order, in which an ``AudioError`` stands
    for a recording that cannot be used. ``num_workers`` threads read ahead.

    Arguments
    ---------
    modules : dict of str to torch.nn.Module
        As for ``Pretrained``. Precision and ``compile`` change them in place.
    hparams : dict, optional
        As for ``Pretrained``.
    run_opts : dict or RunOptions, optional
        As for ``Pretrained``. ``compile`` compiles the blocks of backbones,
        each as one graph for all lengths, unless ``compile_module_keys`` names
        modules to compile as a whole.
    freeze_params : bool
        As for ``Pretrained``.
    precision : str, optional
        What backbones compute in, for inference alone: fp32; bf16; fp16, on
        GPUs; int8, on CPUs; or auto: bf16 where the device has units for it,
        else fp32. Goes before ``precision`` of ``run_opts`` and of
        ``hparams``; fp32 when all are omitted.

    Raises
    ------
    ValueError
        When the device does not have the precision.
    """

    files_method = ""
    """The method that does the task for many recordings."""
    engine = "torch"
    """What runs the model."""
    engine_precision = "fp32"
    """What it computes in, where that is not torch."""

    num_workers: int | None = None
    """Threads that read recordings ahead of the model, 0 for none. None: none
    on a CPU, where the model has all cores, and four beside another device."""

    def __init__(
        self,
        modules: dict[str, Any] | None = None,
        hparams: dict[str, Any] | None = None,
        run_opts: dict[str, Any] | RunOptions | None = None,
        freeze_params: bool = True,
        precision: str | None = None,
    ) -> None:
        options, given = _chosen(run_opts), {**(hparams or {})}
        for source in (options, given):
            precision = precision or source.get("precision")
        device = options.get("device") or given.get("device") or infer_device()
        options["device"] = str(torch.device(device))
        device_type = options["device"].partition(":")[0]
        chosen = choose_precision(precision or "fp32", device_type)
        is_lower = chosen != "fp32" and device_type == "cpu"
        self._lowered = chosen if is_lower and can_lower(chosen) else None
        options["precision"] = "fp32" if self._lowered else chosen
        super().__init__(modules, hparams, options, freeze_params)
        self.precision = chosen

    def _prepare_modules(self, freeze_params):
        """As SpeechBrain, after layers of a lower precision are in place."""
        if self._lowered:
            found = [m for m in self.mods.modules() if isinstance(m, Backbone)]
            if not found:
                raise ValueError(
                    f"precision: expected fp32 for modules without a Backbone; "
                    f"got {self._lowered}"
                )
            for backbone in found:
                lower_precision(
                    backbone.feature_extractor, backbone.encoder, self._lowered
                )
                backbone.register_state_dict_pre_hook(_refuse_weights)
        super()._prepare_modules(freeze_params)

    def _compile(self):
        """Compiles the blocks of backbones, and what SpeechBrain compiles
        by name, or where there are none."""
        blocks = [m for m in self.mods.modules() if isinstance(m, EncoderLayer)]
        if self.compile:
            check_compiler()
        if not self.compile or self.compile_module_keys or not blocks:
            return super()._compile()
        if self._lowered:
            raise ValueError(
                "compile: expected the precision fp32 on a CPU, as the layers "
                f"of others are compiled already; got {self._lowered}"
            )
        for block in blocks:
            block.compile(mode=self.compile_mode, fullgraph=True, dynamic=True)
        self.compile = False  # of whole modules
        super()._compile()
        self.compile = True

    @property
    def workers(self) -> int:
        """How many threads read ahead."""
        if self.num_workers is not None:
            return self.num_workers
        return 0 if torch.device(self.device).type == "cpu" else 4

    def __call__(
        self,
        sources: Source | Iterable[Source],
        *args: Any,
        sample_rate: int | None = None,
        **options: Any,
    ) -> Any:
        """Does the task.

        Arguments
        ---------
        sources : str or path-like or array [N] or dict, or iterable of them
            Files that ``read_audio`` reads, and waveforms as torch.Tensor or
            numpy.ndarray with samples from -1 to 1, or with their own rate as
            ``datasets`` gives them: a dict with ``array`` (or ``raw``) and
            ``sampling_rate``. A torch.Tensor [B, N] is a batch, for
            SpeechBrain's method of the class.
        *args : tuple
            With a batch: the valid share of each waveform.
        sample_rate : int, optional
            Of the waveforms, in Hz; they are resampled. That of the model when
            omitted, 16000 but for diarization of telephone speech.
        **options : dict
            Of the method for many files: ``transcribe_files``,
            ``diarize_files``, ``classify_files``, ``embed_files`` or
            ``extract_files``.

        Returns
        -------
        object or list
            The result, or one for each recording.

        Raises
        ------
        AudioError
            When a single recording cannot be used.
        TypeError
            When the method has no such option.
        """
        has_shares = bool(args) or "wav_lens" in options
        is_batch = isinstance(sources, torch.Tensor) and sources.dim() == 2
        if is_batch or has_shares:
            if not has_shares:
                self._check_batch(sources)
            return super().__call__(sources, *args, **options)
        one = isinstance(sources, (*WHOLE, os.PathLike, Mapping))
        given: Any = [sources] if one else sources
        method = getattr(self, self.files_method)
        known = ["sample_rate", *[*signature(method).parameters][1:]]
        for name in options:
            if name not in known:
                raise TypeError(
                    f"{name}: expected an option of {self.files_method}: "
                    f"{', '.join(known)}"
                )
        results = run_sources(
            given,
            partial(method, **options),
            self.audio_normalizer.sample_rate,
            sample_rate,
        )
        if one and isinstance(results[0], AudioError):
            raise results[0]
        return results[0] if one else results

    def _check_batch(self, wavs):
        """Refuses waveforms without lengths where the class needs these."""
        parameters = signature(self.forward).parameters.values()
        needed = [p for p in parameters if p.default is p.empty][1:]
        if any(p.name == "wav_lens" for p in needed):
            raise AudioError(
                f"waveform: expected shape [N]; got {list(wavs.shape)}, which "
                "is a batch and needs wav_lens"
            )

    def use_engine(self, engine: str, precision: str = "fp32") -> None:
        """Runs the model by another runtime from now on.

        It is exported once, into ``~/.cache/unispeech_sb``, and runs on the
        CPU. Results are those of torch, within 1e-5 in float32.

        Arguments
        ---------
        engine : str
            ``torch``, ``onnx`` (ONNX Runtime) or ``openvino``.
        precision : str
            What another engine than torch computes in: ``fp32`` or ``int8``;
            OpenVINO also ``bf16``, where the processor has it.

        Raises
        ------
        ImportError
            When its packages are missing.
        ValueError
            When there is no such engine or precision, or the model cannot be
            exported.
        """
        if engine not in ENGINES:
            raise ValueError(
                f"engine: expected one of {', '.join(ENGINES)}; got {engine!r}"
            )
        if engine == self.engine == "torch":
            return
        if engine == "torch":
            self.engine = engine
            self._compute_by(None)
            return
        require_engine(engine, f"engine {engine}")
        if torch.device(self.device).type != "cpu":
            raise ValueError(
                f"engine: expected the device cpu for {engine}; got "
                f"{self.device}"
            )
        from unispeech_sb.inference.graphs import GraphRunner, check_engine

        check_engine(engine, precision, self.exportable)
        self._compute_by(partial(GraphRunner, engine, precision))
        self.engine, self.engine_precision = engine, precision

    def _compute_by(self, runner):
        """Puts ``runner``, of a model, in the place of its ``compute``; None
        puts that back."""
        model = self.exportable
        vars(model).pop("compute", None)
        if runner is not None:
            vars(model)["compute"] = runner(model)

    @property
    def exportable(self) -> Any:
        """The part of the model that other engines run: see ``Graph``."""
        raise NotImplementedError

    @classmethod
    def from_hparams(
        cls,
        source: str | Path | FetchSource,
        *args: Any,
        trust: bool = False,
        other_kinds: Sequence[str] = (),
        engine: str = "torch",
        **kwargs: Any,
    ) -> Any:
        """Loads a pretrained folder.

        Arguments
        ---------
        source : str or path-like or FetchSource
            The folder, or what else SpeechBrain fetches.
        *args : tuple
            As for SpeechBrain's ``from_hparams``.
        trust : bool
            Load the yaml as SpeechBrain does, which runs whatever it names.
            Otherwise it may name what this package writes, and nothing else.
        other_kinds : sequence of str
            Keys of ``INTERFACES`` whose folders are taken too.
        engine : str
            As for ``use_engine``, in the ``precision`` that is given here or
            in ``run_opts``, else in fp32.
        **kwargs : dict
            As for SpeechBrain's ``from_hparams`` and the constructor.

        Returns
        -------
        object
            On the device of ``run_opts``, in evaluation mode.

        Raises
        ------
        ValueError
            When the folder is for something else, or its yaml names anything
            else: before anything is loaded.
        """
        if engine != "torch":  # the model that it takes over is in float32
            asked = _engine_precision(engine, kwargs)
            kwargs["precision"] = "fp32"
        place = source.path if isinstance(source, FetchSource) else source
        own_yaml = args or "hparams_file" in kwargs
        if Path(place).is_dir() and not own_yaml:
            expect_folder(place, cls, *other_kinds)
        if trust:
            found = super().from_hparams(source, *args, **kwargs)
        else:
            found = load_interface(cls, source, *args, **kwargs)
        if engine != "torch":
            found.use_engine(engine, asked)
        return found


def _chosen(run_opts):
    """The options of a run that are not left to SpeechBrain."""
    if isinstance(run_opts, RunOptions):
        return {name: run_opts[name] for name in run_opts.overridden_args}
    return {**(run_opts or {})}


def _refuse_weights(backbone, prefix, keep_vars):
    """Refuses to read or write weights that a lower precision has converted."""
    raise ValueError(
        "precision: expected fp32 to read or write the weights of a backbone, "
        "as those of a lower one are for inference alone"
    )


def _engine_precision(engine, options):
    """What another engine is asked to compute in."""
    run_opts = _chosen(options.get("run_opts"))
    if run_opts.get("compile"):
        raise ValueError(f"compile: expected the engine torch; got {engine}")
    asked = options.get("precision") or run_opts.get("precision") or "fp32"
    if asked == "auto":
        can = engine == "openvino" and has_bf16_units("cpu")
        asked = "bf16" if can else "fp32"
    return asked


def expect_exportable(module: Any, cls: type[_Part]) -> _Part:
    """Gives a part of a model back; a ``ValueError`` where it is not of the
    class that other engines run, as in SpeechBrain's own models."""
    if not isinstance(module, cls):
        raise ValueError(
            f"model: expected one of this package, with {cls.__name__}, for "
            f"another runtime; got {type(module).__name__}"
        )
    return module


def _build(entries, path):
    """The objects of checked entries, each once."""
    built: dict[str, Any] = {}

    def value_of(value):
        if isinstance(value, Ref):
            if value not in built:
                built[value] = value_of(entries[value])
            return built[value]
        if isinstance(value, dict):
            return {key: value_of(item) for key, item in value.items()}
        if not isinstance(value, (New, Name)):
            return value
        module, _, name = value.name.rpartition(".")
        found = getattr(import_module(module), name)
        arguments = value_of(value.arguments)
        if value.name in LOBES:
            return build_empty(found, arguments, path)
        if isinstance(value, Name):
            return partial(found, **arguments) if arguments else found
        try:
            return found(**arguments)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: expected the arguments of {name} ({error})"
            ) from error

    return {name: value_of(Ref(name)) for name in entries}
