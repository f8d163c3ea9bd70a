"""Stand-ins keep what they are given, and nothing else is on the list."""

import pytest
import torch

from unispeech_sb.checkpoints.safety.opcodes import ALLOWED
from unispeech_sb.checkpoints.safety.stubs import (
    DATA_CLASSES,
    MAPPINGS,
    STUBS,
    Stub,
    plain,
)

HARMFUL = ("os.", "posix.", "sys.", "subprocess.", "shutil.", "torch.load",
           "torch.hub", "torch.serialization", "builtins.eval", "builtins.exec",
           "builtins.getattr", "builtins.open", "importlib.")  # fmt: skip


def test_the_list_is_explicit_sorted_and_has_nothing_harmful():
    assert len(set(DATA_CLASSES)) == len(DATA_CLASSES) == len(STUBS)
    assert all(stub.name == name for name, stub in STUBS.items())
    assert not [name for name in ALLOWED if name.startswith(HARMFUL)]
    calls = {n for n in ALLOWED if n.startswith(("torch._", "_codecs"))}
    assert calls == {
        "_codecs.encode",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_tensor_v2",
    }
    assert all(name.count(".") for name in (*DATA_CLASSES, *MAPPINGS))


def test_a_stub_only_remembers():
    stub = STUBS["builtins.dict"](print, "hello")
    assert type(stub).__mro__[1:] == (Stub, object)
    assert (stub.arguments, stub.state) == ((print, "hello"), None)
    stub.__setstate__({"state": print, "name": "os.system"})
    assert stub.name == "builtins.dict"
    assert stub.state == {"state": print, "name": "os.system"}
    assert not callable(stub)


@pytest.mark.parametrize("module", ["pathlib", "pathlib._local"])
def test_paths_of_every_python_are_texts(module):
    path = STUBS[f"{module}.PurePosixPath"]("/", "a", "b")
    assert plain(path) == "/a/b"


def test_plain_data_of_anything_is_plain():
    options = STUBS["argparse.Namespace"]()
    assert plain(options) == {}
    choice = STUBS["fairseq.dataclass.constants.Choices"]("gelu")
    options.__setstate__({"a": choice, "b": STUBS["typing.Any"], (1, 2): 3})
    found = plain({"o": options, "t": torch.ones(2), "n": (None, 1.5, b"x")})
    assert found == {
        "o": {"a": "gelu", "b": "typing.Any", "(1, 2)": 3},
        "t": "Tensor",
        "n": [None, 1.5, b"x"],
    }
