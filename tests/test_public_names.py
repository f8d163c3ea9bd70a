"""What users of an earlier version name is still there.

``tests/fixtures/public_names/listing.py`` has listed it, and tells how. What
has moved or is called otherwise has a row in ``unispeech_sb/moved.py``; keys
of yamls are compared in ``tests/test_old_exports.py``.
"""

import json
import pydoc

import pytest

from tests.conftest import ROOT
from tests.fixtures.public_names import listing

OLD = json.loads(
    (ROOT / "tests/fixtures/public_names/names.json").read_text("utf-8")
)
MODULES = sorted(OLD["exported"])
COMMANDS = sorted(OLD["commands"])


def missing(paths):
    """Those that are not found."""
    return [path for path in paths if pydoc.locate(path) is None]


def test_there_is_as_much_as_expected():
    assert len(MODULES) == 9
    assert sum(map(len, OLD["exported"].values())) == 81
    assert len(OLD["paths"]) == 47
    assert len(COMMANDS) == 9
    assert len(OLD["recipes"]) == 9
    assert {"convert", "diarize", "transcribe", "verify"} < set(COMMANDS)


@pytest.mark.parametrize("module", MODULES)
def test_what_a_module_exported_is_found(module):
    assert missing(f"{module}.{name}" for name in OLD["exported"][module]) == []


def test_names_in_the_readme_and_the_yamls_are_found():
    assert missing(OLD["paths"]) == []


def test_every_recipe_is_listed():
    assert set(OLD["recipes"]) <= set(listing.recipes())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_takes_its_flags_and_arguments(name):
    old, new = OLD["commands"][name], listing.command(name)
    assert old["arguments"] == new["arguments"]
    for flag, kind in old["flags"].items():
        assert flag in new["flags"], flag
        if isinstance(kind, list):
            # True: too many for the usage; the help has them in a sentence
            known = new["flags"][flag]
            assert known is True or set(kind) <= set(known), flag
        else:
            assert kind == bool(new["flags"][flag]), flag


def test_the_flags_before_a_command_are_still_taken():
    assert {"--version", "--traceback", "--help"} <= listing.command()[
        "flags"
    ].keys()


def test_the_listing_reads_helps_and_texts():
    text = """\
usage: x [-h] [--form {a-b,c}] [-o F] name other

positional arguments:
  name        a name
  other       with --no-flag

options:
  -h, --help      shows this
  --form {a-b,c}  a form, as --not-this
  -o F, --to F    where
"""
    assert listing.arguments_in(text) == 2
    assert listing.flags_in(text) == {
        "-h": False, "--help": False, "--form": ["a-b", "c"],
        "-o": True, "--to": True,
    }  # fmt: skip
    assert listing.paths_in(
        "a !new:unispeech_sb.a.B\nfrom unispeech_sb.c import (\n    D,\n)\n"
    ) == {"unispeech_sb.a.B", "unispeech_sb.c", "unispeech_sb.c.D"}
