"""docs/scale.md: tables are what the script computes, commands parse."""

import importlib.util
import re
import shlex

import pytest
from torch.distributed.run import get_args_parser

from tests.conftest import ROOT
from unispeech_sb.nnet.lengths import conv_lengths
from unispeech_sb.recipe_options import OWN_OPTIONS, read_command_line

PAGE = (ROOT / "docs" / "scale.md").read_text("utf-8")
COMMANDS = re.findall(r"^(?:srun \S+ )?torchrun (-.*)$", PAGE, re.M)


@pytest.fixture(scope="module")
def scale():
    """The script."""
    place = ROOT / "docs" / "scale.py"
    spec = importlib.util.spec_from_file_location("scale", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_those_of_the_script(scale):
    made = scale.tables()
    assert len(made) == 6
    for name, text in made.items():
        assert f"<!-- {name} -->\n{text}\n" in PAGE, "python docs/scale.py -w"


def test_operations_of_a_transformer_are_counted(scale):
    """A second of Base, by hand: 49 frames, 12 blocks of 7.1 M weights, and
    the convolutions, which are more than a third as many."""
    plan = scale.read_plan(*scale.MODELS["Base"])
    blocks = 3 * 2 * 12 * (4 * 768**2 + 2 * 768 * 3072) * 50
    assert 1.2 * blocks < plan.flops < 2 * blocks
    assert conv_lengths(16000, [10, 3, 3, 3, 3, 2, 2], [5, *[2] * 6]) == 49
    assert plan.parameters == pytest.approx(94.4e6, rel=0.01)
    assert plan.update_s == 32 * 87.5 and plan.updates == 400_000


def test_a_ring_sends_twice_the_gradients_at_most(scale):
    plan, gpu = scale.Plan(10**9, 1.0, 1, 1.0, 1), scale.GPUS["A100"]
    assert scale.reduce_s(plan, 1, gpu, gpu.between) == 0
    two = scale.reduce_s(plan, 2, gpu, gpu.between)
    assert two == pytest.approx(4e9 / gpu.inside, rel=0.01)
    many = scale.reduce_s(plan, 128, gpu, gpu.between)
    assert many == pytest.approx(8e9 / gpu.between, rel=0.02)


def test_there_are_commands_to_look_at():
    assert len(COMMANDS) == 4


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_read_by_torchrun_and_by_the_recipe(command):
    for variable in ("$SLURM_NNODES", "$SLURM_JOB_ID", "$head"):
        command = command.replace(variable, "4")
    given = get_args_parser().parse_args(shlex.split(command))
    script, arguments = given.training_script, given.training_script_args
    if script == "unispeech-sb":
        assert given.no_python and arguments.pop(0) == "recipe"
        script = f"recipes/{arguments[0]}.py"
        arguments[0] = f"hparams/{arguments[0]}.yaml"
    assert (ROOT / script).is_file()
    line = read_command_line([str(ROOT / arguments[0]), *arguments[1:]])
    assert line.values and line.given


def test_the_page_names_each_option():
    for name in OWN_OPTIONS.keys() - {"overwrite", "traceback"}:
        assert f"`--{name}`" in PAGE
