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
    assert len(done.ddp) == recipe.epochs
    if recipe.falls:
        assert min(done.losses[1:]) < done.losses[0]
        assert recipe.epochs == 1 or min(done.ddp[1:]) < done.ddp[0]
