"""Yamls of SpeechBrain's recipes are read as data, as HyperPyYAML would."""

import io

import pytest
import yaml
from hyperpyyaml import load_hyperpyyaml, resolve_references

from unispeech_sb.checkpoints.recipe_yaml import RecipeYaml, run_yaml
from unispeech_sb.checkpoints.safe_yaml import Name, New, Ref

TEXT = """\
seed: 1986
lr: 1.e-8
size: 4
twice: !ref <size> * 2
less: !ref (<size> - 6) // 2
folder: results
sub: !ref <folder>/<seed>/save
sizes: {dim: 3, names: [a, b]}
dim: !ref <sizes[dim]>
quoted: '12'
none: null
flag: True
listed: [null, null, !ref <twice>]
copied: !ref <sizes>
pair: (2, 3.5)
again: !ref <pair>
words: ( a, true )
"""
OBJECTS = """\
size: 4
activation: !name:torch.nn.LeakyReLU
lin: !new:speechbrain.nnet.linear.Linear
    input_size: !ref <size>
    n_neurons: !ref <size> * 2
seq: !new:torch.nn.ModuleList
    - [!ref <lin>, !ref <activation>]
inner: !new:some.Class
    part: !new:other.Class
        activation: !ref <activation>
data_folder: !PLACEHOLDER
checkpointer: !new:speechbrain.utils.checkpoints.Checkpointer
    checkpoints_dir: x
    recoverables:
        model: !ref <seq>
        lin: !ref <lin>
modules:
    lin: !ref <lin>
"""


def read(tmp_path, text):
    """A recipe's yaml from its text."""
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return RecipeYaml(path)


def test_plain_values_are_those_of_hyperpyyaml(tmp_path):
    expected = load_hyperpyyaml(TEXT)
    recipe = read(tmp_path, TEXT)
    found = {name: recipe.get(name) for name in recipe.nodes}
    assert found == expected
    assert {n: type(v) for n, v in found.items()} == {
        n: type(v) for n, v in expected.items()
    }


def resolved(text):
    """As SpeechBrain writes it to the folder of a run, with anchors."""
    found = resolve_references(io.StringIO(text), {"data_folder": "/data"})
    return found.read()


@pytest.mark.parametrize("form", [str, resolved])
def test_objects_are_named_and_not_built(tmp_path, form):
    text = form(OBJECTS)
    assert ("&id001" in text) == (form is resolved)
    recipe = read(tmp_path, text)
    linear = "speechbrain.nnet.linear.Linear"
    sizes = {"input_size": 4, "n_neurons": 8}
    assert recipe.get("lin") == New(linear, sizes)
    assert recipe.get("activation") == Name("torch.nn.LeakyReLU", {})
    assert recipe.get("seq").arguments == [[Ref("lin"), Ref("activation")]]
    inner = New("other.Class", {"activation": Ref("activation")})
    assert recipe.get("inner") == New("some.Class", {"part": inner})
    assert recipe.recoverables() == {"model": "seq", "lin": "lin"}
    assert recipe.modules() == {"lin": "lin"}
    assert recipe.get("no such entry") is None


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a: !ref <b>\nb: !ref <a>\n", "at most"),
        ("a: !ref <nowhere>\n", "an entry"),
        ("a: &x [1]\nb: *y\n", "expected yaml"),
        ("a: &x [*x]\n", "expected yaml"),
        ("- 1\n", "the yaml of a recipe"),
        ("", "the yaml of a recipe"),
        ("a: [1\n", "expected yaml"),
        ("b: &l0 [1]\n" + "".join(
            f"b{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]\n"
            for i in range(1, 9)
        ) + "a: *l8\n", "at most"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_sentence(tmp_path, text, expected):
    with pytest.raises(ValueError, match=expected) as caught:
        read(tmp_path, text).get("a")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["2 ** 9 ** 9 ** 9", "__import__('os').getcwd()", "9 / 0"]
)
def test_no_more_than_sums_is_calculated(tmp_path, text):
    assert read(tmp_path, f"a: !ref {text}\n").get("a") == text


def test_the_yaml_of_a_run_is_found(tmp_path):
    ckpt = tmp_path / "run" / "save" / "CKPT+1"
    ckpt.mkdir(parents=True)
    assert run_yaml(ckpt) is None
    (tmp_path / "hyperparams.yaml").touch()  # of something else
    assert run_yaml(ckpt) is None
    expected = tmp_path / "run" / "hyperparams.yaml"
    expected.write_text(yaml.dump({"a": 1}))
    for path in (ckpt, ckpt / "model.ckpt"):
        assert run_yaml(path) == expected
