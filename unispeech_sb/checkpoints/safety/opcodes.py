"""Pickles, gone through step by step before torch reads them.

torch's restricted unpickler runs nothing harmful, yet its calls can allocate
without bounds. Here each step is followed on a stack of stand-ins, so that
names and sizes are known before anything is made.
"""

import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

from unispeech_sb.checkpoints.safety.stubs import MAPPINGS, STUBS

STORAGES = {
    "torch.BoolStorage": 1,
    "torch.ByteStorage": 1,
    "torch.CharStorage": 1,
    "torch.BFloat16Storage": 2,
    "torch.HalfStorage": 2,
    "torch.ShortStorage": 2,
    "torch.FloatStorage": 4,
    "torch.IntStorage": 4,
    "torch.DoubleStorage": 8,
    "torch.LongStorage": 8,
}
"""Kind of a storage -> bytes of an element."""

ORDERED = "collections.OrderedDict"
ENCODE = "_codecs.encode"
TENSOR_CALL = "torch._utils._rebuild_tensor_v2"
PARAMETER_CALL = "torch._utils._rebuild_parameter"
PLAIN_CALLS = {"torch.device", "torch.Size", *STUBS, *MAPPINGS}
CLASSES = {ORDERED, *STUBS}
VALUES = {"torch.float16", "torch.bfloat16", "torch.float32", "torch.float64"}
ALLOWED = {
    ORDERED, ENCODE, TENSOR_CALL, PARAMETER_CALL,
    *PLAIN_CALLS, *STORAGES, *VALUES,
}  # fmt: skip

MOST_STEPS = 400_000
MOST_WEIGHT = 10_000
"""Values in a tuple, those in its tuples included: hashing visits them all."""
MOST_KEYS = 20_000
"""Keys that are no text: many with one hash would take for ever."""
MOST_ALIASES = 4
"""Bytes of all tensors over bytes of the file: some share a storage."""


class Name(str):
    """The name of a class or function, where a value would stand."""


class Tuple(NamedTuple):
    """A tuple, where a value would stand; the values in all its levels."""

    items: list[Any]
    weight: int


class Storage(NamedTuple):
    """A storage, where it would stand: elements, and bytes of each."""

    numel: int
    itemsize: int


TENSOR, OTHER = object(), object()


class Refusal(ValueError):
    """A pickle that is not to be read; says why, without the file."""


class Simulation:
    """Follows pickles without making their objects.

    Arguments
    ---------
    size : int
        Bytes of the file: nothing in it can be larger.
    records : dict, optional
        Key of a storage -> its bytes, where the file has them apart.
    """

    def __init__(self, size, records=None):
        self.size, self.records = size, records
        self.steps = self.keys = 0
        self.storage_bytes = self.tensor_bytes = 0
        self.storages = {}

    def run(self, stream):
        """Follows one pickle from the start that a stream is at to its end;
        the stand-in of what it makes. A step that is not for a checkpoint is
        a ``Refusal``."""
        self.stack, self.below, self.memo = [], [], {}
        try:
            for step, argument, _ in pickletools.genops(stream):
                self.steps += 1
                if self.steps > MOST_STEPS:
                    raise Refusal(f"its pickle has over {MOST_STEPS} steps")
                if step.name == "STOP":
                    return self.stack.pop()
                if step.name not in STEPS:
                    raise Refusal(f"its pickle has the step {step.name}")
                STEPS[step.name](self, argument)
        except Refusal:
            raise
        except (ValueError, LookupError, OverflowError, MemoryError) as error:
            raise Refusal(
                f"its pickle is damaged ({type(error).__name__})"
            ) from error
        raise Refusal("its pickle has no end")

    def _protocol(self, number):
        if number != 2:
            raise Refusal(f"its pickle has protocol {number}, not 2")

    def _name(self, text):
        module, _, name = text.partition(" ")
        if (module, name) in NAME_MAPPING:
            module, name = NAME_MAPPING[module, name]
        else:
            module = IMPORT_MAPPING.get(module, module)
        full = f"{module}.{name}"
        if full not in ALLOWED:
            raise Refusal(
                f"it names {full.encode('unicode_escape').decode():.120}, "
                "which is not among the names that a checkpoint may hold"
            )
        self.stack.append(Name(full))

    def _push(self, value):
        self.stack.append(value)

    def _container(self, _):
        self.stack.append(OTHER)

    def _mark(self, _):
        self.below.append(self.stack)
        self.stack = []

    def _popped(self):
        items, self.stack = self.stack, self.below.pop()
        return items

    def _get(self, index):
        self.stack.append(self.memo[index])

    def _put(self, index):
        self.memo[index] = self.stack[-1]

    def _append(self, _):
        self.stack.pop()
        self._change()

    def _extend(self, _):
        self._popped()
        self._change()

    def _set_item(self, _):
        del self.stack[-1]
        self._key(self.stack.pop())
        self._change()

    def _set_items(self, _):
        items = self._popped()
        for key in items[::2]:
            self._key(key)
        self._change()

    def _gather(self, items):
        weight = 1 + sum(
            item.weight if isinstance(item, Tuple) else 1 for item in items
        )
        if weight > MOST_WEIGHT:
            raise Refusal(f"a tuple in it holds over {MOST_WEIGHT} values")
        self.stack.append(Tuple(items, weight))

    def _gather_last(self, count):
        items = [self.stack.pop() for _ in range(count)]
        self._gather(items[::-1])

    def _new(self, _):
        arguments, target = self.stack.pop(), self.stack.pop()
        if not isinstance(target, Name) or target not in CLASSES:
            raise Refusal("its pickle makes an object of no class")
        self._items(arguments)
        self.stack.append(OTHER)

    def _build(self, _):
        self.stack.pop()
        self._change()

    def _call(self, _):
        arguments = self._items(self.stack.pop())
        target = self.stack.pop()
        if not isinstance(target, Name):
            raise Refusal("its pickle calls what is no function")
        if target == TENSOR_CALL:
            self._tensor(arguments)
        elif target == PARAMETER_CALL:
            if len(arguments) != 3 or arguments[0] is not TENSOR:
                raise Refusal("a parameter in it is no tensor")
        elif target == ENCODE:
            if len(arguments) != 2 or arguments[1] != "latin1":
                raise Refusal("its pickle encodes text, not as latin1")
        elif target == ORDERED:
            if arguments:
                raise Refusal("a mapping in it is not made empty")
        elif target not in PLAIN_CALLS:
            raise Refusal(f"its pickle calls {target}")
        made = target in (TENSOR_CALL, PARAMETER_CALL)
        self.stack.append(TENSOR if made else OTHER)

    def _storage(self, _):
        items = self._items(self.stack.pop())
        if len(items) == 6 and items[5] is None:
            items = items[:5]  # older files: no view of another storage
        kinds = [type(item) for item in items]
        if kinds != [str, Name, str, str, int] or items[0] != "storage":
            raise Refusal("a storage in it is not described as torch does")
        _, kind, key, _, numel = items
        if kind not in STORAGES:
            raise Refusal(f"a storage in it is of the kind {kind}")
        size = numel * STORAGES[kind]
        if self.storages.get(key, size) != size or size < 0:
            raise Refusal(f"storage {ascii(key):.20} has two sizes")
        if self.records is not None and self.records.get(key) != size:
            raise Refusal(f"storage {ascii(key):.20} has another size there")
        if key not in self.storages:
            self.storage_bytes += size
        self.storages[key] = size
        if self.storage_bytes > self.size:
            raise Refusal("its storages are larger than the file")
        self.stack.append(Storage(numel, STORAGES[kind]))

    def _tensor(self, arguments):
        """Checks that a tensor lies inside its storage."""
        if len(arguments) != 6 or not isinstance(arguments[0], Storage):
            raise Refusal("a tensor in it is not described as torch does")
        storage, offset, shape, strides, trained, hooks = arguments
        if type(trained) is not bool or hooks is not OTHER:
            raise Refusal("a tensor in it has hooks of its own")
        shape, strides = self._items(shape), self._items(strides)
        if not all(
            type(number) is int and 0 <= number <= self.size
            for number in (offset, *shape)
        ) or not all(type(number) is int and number >= 0 for number in strides):
            raise Refusal("a tensor in it has an absurd shape")
        if len(shape) != len(strides) or len(shape) > 16:
            raise Refusal("a tensor in it has an absurd shape")
        if not prod(shape):
            return
        last = sum((n - 1) * step for n, step in zip(shape, strides))
        if prod(shape) > storage.numel or offset + last >= storage.numel:
            raise Refusal("a tensor in it is larger than its storage")
        self.tensor_bytes += prod(shape) * storage.itemsize
        if self.tensor_bytes > MOST_ALIASES * self.size:
            raise Refusal("its tensors are larger than the file")

    def _items(self, value):
        """Items of a tuple that must be one."""
        if not isinstance(value, Tuple):
            raise Refusal("its pickle calls something without arguments")
        return value.items

    def _key(self, key):
        """Counts a key that is no text."""
        self.keys += type(key) is not str
        if self.keys > MOST_KEYS:
            raise Refusal(f"it has over {MOST_KEYS} keys that are no text")

    def _change(self):
        """Only containers and stubs may be changed once made."""
        if self.stack[-1] is not OTHER:
            raise Refusal("its pickle changes what is no container")


VALUES_OF = ("BININT", "BININT1", "BININT2", "BINFLOAT", "LONG1",
             "BINUNICODE", "SHORT_BINSTRING")  # fmt: skip
STEPS: dict[str, Callable[[Simulation, Any], None]] = {
    "PROTO": Simulation._protocol,
    "GLOBAL": Simulation._name,
    "MARK": Simulation._mark,
    "APPEND": Simulation._append,
    "APPENDS": Simulation._extend,
    "SETITEM": Simulation._set_item,
    "SETITEMS": Simulation._set_items,
    "TUPLE": lambda run, _: run._gather(run._popped()),
    "NEWOBJ": Simulation._new,
    "REDUCE": Simulation._call,
    "BUILD": Simulation._build,
    "BINPERSID": Simulation._storage,
    "NONE": lambda run, _: run._push(None),
    "NEWTRUE": lambda run, _: run._push(True),
    "NEWFALSE": lambda run, _: run._push(False),
    "EMPTY_TUPLE": lambda run, _: run._gather([]),
    "TUPLE1": lambda run, _: run._gather_last(1),
    "TUPLE2": lambda run, _: run._gather_last(2),
    "TUPLE3": lambda run, _: run._gather_last(3),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), Simulation._get),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), Simulation._put),
    **dict.fromkeys(("EMPTY_DICT", "EMPTY_LIST"), Simulation._container),
    **dict.fromkeys(VALUES_OF, Simulation._push),
}
"""Steps that torch.save uses; torch would read a few others."""
