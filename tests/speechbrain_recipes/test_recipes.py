"""SpeechBrain's recipes with our lobes train, resume, run in processes."""

import math

import pytest

from tests.speechbrain_recipes.run_recipes import (
    CLONES,
    RECIPES,
    clone_of,
    measure,
    row,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the recipes run; one uses another's checkpoint."""
    return tmp_path_factory.mktemp("runs")


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_speechbrains_recipe(name, folder):
    recipe = RECIPES[name]
    if clone_of(recipe) is None:
        variable = CLONES[recipe.script.partition("/")[0]]
        pytest.skip(f"no clone: set {variable} to the folder of one")
    done = measure(name, folder)
    print(row(name, done))  # pytest -s shows it
    if recipe.result:
        assert done.result != "none"
        return
    assert done.resumed
    assert all(map(math.isfinite, done.losses + done.ddp))
    assert len(done.ddp) == recipe.epochs * recipe.in_two
    assert falls(done.losses)
    assert falls(done.ddp) or len(done.ddp) < 2


def falls(losses):
    """Whether the last third of the epochs is better than the first."""
    third = max(1, len(losses) // 3)
    return sum(losses[-third:]) < sum(losses[:third])
