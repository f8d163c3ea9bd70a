"""A recipe's command line and help, beside SpeechBrain's own parser."""

import sys

import pytest
import yaml
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.run_opts import RunOptions

from tests.conftest import ROOT
from unispeech_sb.recipe_options import (
    OWN_OPTIONS,
    RUN_OPTIONS,
    SPEECHBRAIN_OPTIONS,
    _parser,
    answer_help,
    check_inputs,
    describe_recipe,
    read_command_line,
)

YAMLS = sorted((ROOT / "hparams").glob("*.yaml"))
TOY = """\
# A toy.
#
#   python recipes/toy.py

seed: 1
data_name: !applyref:unispeech_sb.experiment.name_data [!ref <data_folder>]
output_folder: !ref results/toy/<data_name>/<seed>
folder: !ref <output_folder>/save

# Data: a folder,
# or a file
data_folder: !PLACEHOLDER
trials: null # to test on
units_folder: !ref <folder>/units
skip_prep: False
text: "# [no comment" # one
sizes: [1,
  2] # of two lines
options: # each from ... to
    low: 0.5 # the lowest
    high: null

# Built later
head: !name:torch.nn.Linear
    in_features: !ref <seed>
modules: {}
lr: 0.1
other: !ref <head>
"""


@pytest.fixture
def toy(tmp_path):
    """A yaml file with everything that yamls have."""
    path = tmp_path / "toy.yaml"
    path.write_text(TOY)
    return path


def properties(parser):
    """Name of each option -> what the parser does with it."""
    return {
        action.dest: (
            *(type(action), action.option_strings, action.default),
            *(action.type, action.nargs, action.choices and {*action.choices}),
        )
        for action in parser._actions
        if action.dest not in ("help", "param_file")
    }


def test_the_options_are_speechbrains_own():
    ours = properties(_parser("recipe"))
    assert [ours.pop(name) for name in OWN_OPTIONS]
    theirs = properties(RunOptions._create_parser())
    for name in ("jit_module_keys", "compile_module_keys"):
        theirs[name] = (*theirs[name][:3], None, *theirs[name][4:])  # str
    assert len(ours) > 30
    assert ours == theirs
    assert all(explanation for _, explanation in RUN_OPTIONS.values())


def test_options_are_read_as_speechbrain_reads_them(toy):
    argv = [
        *(str(toy), "--device=cuda:1", "--precision", "bf16", "--debug"),
        *("--jit_module_keys", "a", "b", "--max_grad_norm=1", "--lr=2"),
    ]
    line = read_command_line(argv)
    _, theirs, overrides = RunOptions.from_command_line_args(argv)
    for name in SPEECHBRAIN_OPTIONS:
        assert line.run_options[name] == theirs[name], name
    assert line.given == theirs.overridden_args
    assert line.overrides == "lr: 2"
    assert yaml.safe_load(overrides) == line.values == {"lr": 2}


def test_what_launchers_and_earlier_versions_wrote_is_accepted(toy):
    argv = [
        *(str(toy), "--distributed_launch", "--distributed_launch=True"),
        *("--local_rank=1", "--local-rank=1", "--debug=True"),
        *("--data_parallel_backend=False", "--async_checkpoints=true"),
        *("--jit=yes please", "--lr=2"),
    ]
    with pytest.raises(SystemExit):  # argparse's own sentence
        read_command_line(argv)
    line = read_command_line([a for a in argv if "please" not in a])
    assert line.values == {"lr": 2}
    assert line.given == {"debug", "async_checkpoints"}
    assert line.run_options["debug"] and line.run_options["async_checkpoints"]
    assert not line.run_options["data_parallel_backend"]


def test_ways_of_sharing_are_two(toy, capsys):
    assert read_command_line([str(toy)]).run_options["data_parallel"] == "ddp"
    with pytest.raises(SystemExit):
        read_command_line([str(toy), "--data_parallel=zero"])
    assert "choose from" in capsys.readouterr().err


def test_a_key_of_the_yaml_may_begin_an_option(toy):
    toy.write_text("test: 1\n")
    line = read_command_line([str(toy), "--test=2"])
    assert line.values == {"test": 2} and not line.run_options["test_only"]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "--foldr=x",
            "no key 'foldr'; did you mean 'folder'? It has: seed, data",
        ),
        ("--debug_batch=1", "did you mean 'debug_batches'?"),
        (
            "--xyz=1",
            "toy.yaml has no key 'xyz'; it has: seed, data_name, output_fo",
        ),
        ("--learning_rate=1", "did you mean 'lr'? It has: "),
        ("--output_dir=a", "did you mean 'output_folder'? It has: "),
        ("--lr=fast", "lr: expected a number, as in the yaml file; got 'fast'"),
        ("--skip_prep=yep", "skip_prep: expected True or False, got 'yep'"),
        ("--lr", "lr: expected --lr=VALUE; got no value"),
        ("stray", "expected --key=value after the yaml file, got 'stray'"),
        ("--seed=[1", "toy.yaml: expected yaml, in it and on the command"),
    ],
)
def test_mistakes_are_named(argument, message, toy):
    with pytest.raises(ValueError) as caught:
        read_command_line([str(toy), argument])
    assert message in str(caught.value)


def test_numbers_may_be_written_in_all_ways(toy):
    for text in ("1e-3", "2", "null", "[1, 2]"):
        read_command_line([str(toy), f"--lr={text}"])


def test_a_file_that_is_no_yaml_of_keys_is_named(toy):
    with pytest.raises(FileNotFoundError, match="none.yaml: there is no such"):
        read_command_line(["none.yaml"])
    toy.write_text("[1, 2]")
    with pytest.raises(ValueError, match="expected a mapping of yaml keys"):
        read_command_line([str(toy)])
    toy.write_text("a: [1")
    for function in (
        lambda: read_command_line([str(toy)]),
        lambda: describe_recipe(toy, "toy", ""),
    ):
        with pytest.raises(ValueError, match=r"toy.yaml: expected yaml, got"):
            function()
    toy.write_bytes("seed: 1\n# für dich\n".encode("latin-1"))
    with pytest.raises(ValueError, match="toy.yaml, line 2: .* UTF-8"):
        read_command_line([str(toy)])


def check(path, *argv):
    """Checks a command line as a recipe does."""
    check_inputs(read_command_line([str(path), *argv]))


def test_open_keys_and_missing_files_are_named(toy, tmp_path):
    with pytest.raises(ValueError, match="needs a value of data_folder: give"):
        check(toy)
    refusal = (
        "(?i)none: expected a folder, or a file, as data_folder; there is no"
    )
    for value in ("none", f"[{tmp_path}, none]", ""):
        with pytest.raises(ValueError, match=refusal):
            check(toy, f"--data_folder={value}")
    check(toy, f"--data_folder=[{tmp_path}, {toy}]")
    toy.write_text(TOY.replace("!PLACEHOLDER", "[none]"))
    with pytest.raises(ValueError, match="none: expected a file or folder, as"):
        check(toy)
    toy.write_text(TOY)
    with pytest.raises(
        ValueError, match="none: expected a file or folder, as tri"
    ):
        check(toy, f"--data_folder={tmp_path}", "--trials=none")


def test_what_is_written_or_not_read_need_not_be_there(toy, tmp_path):
    check(toy, f"--data_folder={tmp_path}", "--units_folder=none")
    check(toy, "--data_folder=none", "--skip_prep=True")
    toy.write_text(f"{TOY}synthetic: False\n")
    check(toy, "--data_folder=none", "--synthetic=True")


@pytest.mark.parametrize(
    ("more", "argument", "package", "extra"),
    [
        ("synthetic: False", "--synthetic=True", "espeakng_loader", "demo"),
        ("espeak: null", "--espeak=ky", "espeakng_loader", "demo"),
        ("kmeans: {}", "--seed=2", "sklearn", "pretrain"),
    ],
)
def test_a_missing_extra_is_named_first(
    more, argument, package, extra, toy, tmp_path, monkeypatch
):
    toy.write_text(f"{TOY}{more}\n")
    check(toy, f"--data_folder={tmp_path}", argument)
    monkeypatch.setitem(sys.modules, package, None)
    remedy = rf"pip install 'unispeech_sb\[{extra}\]'"
    with pytest.raises(ImportError, match=remedy):
        check(toy, f"--data_folder={tmp_path}", argument)


def test_help_has_the_yamls_sections_comments_and_defaults(toy, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = describe_recipe(toy, "toy", "Does it.\n\nExample.\n\nA\nfolder.")
    assert (
        text.partition("\n\nOptions of")[0]
        == """\
usage: toy

Does it.

A folder.

toy.yaml:
  A toy.

    python recipes/toy.py

General
  --seed=1
  --data_name=...               derived from <data_folder>
  --output_folder=results/toy/<data_name>/<seed>
  --folder=<output_folder>/save

Data: a folder, or a file
  --data_folder=...             required
  --trials=null                 to test on
  --units_folder=<folder>/units
  --skip_prep=False
  --text="# [no comment"        one
  --sizes=[1, 2]                of two lines
  --options={...}               each from ... to
    low: 0.5                    the lowest
    high: null

Built later
  --lr=0.1

<key> stands for the value of that key, null for none. The yaml builds from
these: head, modules, other."""
    )


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_help_shows_each_key_of_each_yaml_with_its_value(path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = describe_recipe(path, "recipe", "").partition("\n\nGeneral\n")[2]
    ours, _, options = text.partition("\n\nOptions of a run\n")
    assert max(map(len, text.splitlines())) <= 80
    assert "!" not in ours
    shown = {}
    for row in ours.splitlines():
        if row.startswith("  --"):
            key, _, default = row[4:].partition("=")
            shown.setdefault(key, default.partition("  ")[0])
    nodes = {
        key.value: node for key, node in yaml.compose(path.read_text()).value
    }
    plain = {key for key, node in nodes.items() if node.tag[0] != "!"}
    assert shown["output_folder"].endswith("/<data_name>/<seed>")
    hidden = plain - shown.keys()
    assert all(name.endswith("_opts") or name == "modules" for name in hidden)
    assert not [name for name in RUN_OPTIONS if name in nodes
                and f"  --{name}=" in options]  # fmt: skip
    for key in plain & shown.keys():
        if shown[key] != "{...}":
            value = yaml.safe_load(shown[key])
            assert value == yaml.safe_load(yaml.serialize(nodes[key])), key


def test_a_script_prints_the_same_help(monkeypatch, capsys):
    script = ROOT / "recipes" / "asr.py"
    yaml_file = ROOT / "hparams" / "asr.yaml"
    monkeypatch.setattr(sys.modules["__main__"], "__doc__", "Speech.")
    for argv in (["--help"], [str(yaml_file), "-h"]):
        monkeypatch.setattr(sys, "argv", [str(script), *argv])
        with pytest.raises(SystemExit) as caught:
            answer_help()
        assert caught.value.code == 0
        usage = f"python {script} YAML [--key=value ...]"
        expected = describe_recipe(yaml_file, usage, "Speech.")
        assert capsys.readouterr().out == expected + "\n"
    monkeypatch.setattr(sys, "argv", [str(script), str(yaml_file)])
    answer_help()
    assert capsys.readouterr().out == ""


def test_the_yaml_takes_what_was_read(toy):
    argv = [str(toy), "--data_folder=x", "--options={low: 2}", "--lr=1e-3"]
    hparams = load_hyperpyyaml(TOY, read_command_line(argv).overrides)
    assert hparams["options"] == {"low": 2, "high": None}
    assert hparams["lr"] == 1e-3


def test_a_script_reads_the_line_of_its_process(tmp_path, monkeypatch):
    (tmp_path / "toy.yaml").write_text("seed: 1")
    command = ["toy.py", str(tmp_path / "toy.yaml"), "--seed=2"]
    monkeypatch.setattr(sys, "argv", command)
    assert read_command_line(None).values == {"seed": 2}
