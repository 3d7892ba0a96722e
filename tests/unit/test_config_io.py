"""Reading, checking and writing recipes."""

import tomllib

import pytest

from alexnet.config import Recipe
from alexnet.config_io import (
    diff_recipes,
    from_toml_text,
    known_keys,
    load_recipe,
    parse_override,
    recipe_names,
    to_toml,
)
from alexnet.errors import UserError


def message(*overrides, recipe="digits"):
    with pytest.raises(UserError) as caught:
        load_recipe(recipe, overrides)
    return str(caught.value)


# ---------------------------------------------------------------- precedence and grammar


def test_the_command_line_beats_the_file_which_beats_the_defaults(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("[optimizer]\nlr = 0.5\nmomentum = 0.8\n")
    recipe = load_recipe(file, ["optimizer.lr=0.25"])
    assert (recipe.optimizer.lr, recipe.optimizer.momentum) == (0.25, 0.8)
    assert recipe.optimizer.weight_decay == Recipe().optimizer.weight_decay


def test_the_last_of_two_overrides_of_one_key_counts():
    assert load_recipe(None, ["seed=1", "seed=2"]).seed == 2


def test_no_name_is_the_digits_recipe():
    assert load_recipe() == load_recipe("digits")


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("model.name=caffe", ("model", "name"), "caffe"),
        ('model.name="caffe"', ("model", "name"), "caffe"),
        ("runtime.device=cuda:0", ("runtime", "device"), "cuda:0"),
        ("optimizer.lr=1e-3", ("optimizer", "lr"), 0.001),
        ("seed = 3", ("seed",), 3),
        ("augment.flip=false", ("augment", "flip"), False),
        ("schedule.layers.conv1.milestones=[1, 2]", ("schedule", "layers", "conv1", "milestones"), [1, 2]),
        ("train.ema_decay=none", ("train", "ema_decay"), None),
        ("logging.wandb_project=a=b", ("logging", "wandb_project"), "a=b"),
    ],
)
def test_an_override_is_toml_and_a_bare_word_is_text(text, path, value):
    parsed_path, parsed_value = parse_override(text)
    assert (parsed_path, parsed_value) == (path, value)
    assert type(parsed_value) is type(value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("optimizer.lr", "expected section.key=value"),
        ("optimizer lr=3", "expected section.key=value"),
        ("=3", "expected section.key=value"),
        ("optimizer.lr=", "no value"),
        ("schedule.milestones=[1, 2", "not valid TOML"),
        ('model.name="caffe', "not valid TOML"),
        ("seed=1\nmodel.name=3", "expected one value"),
    ],
)
def test_a_malformed_override_is_quoted_with_what_was_expected(text, says):
    with pytest.raises(UserError, match=says) as caught:
        parse_override(text)
    assert repr(text) in str(caught.value)


def test_deep_keys_reach_one_layer():
    recipe = load_recipe(None, ["optimizer.layers.fc8.weight_decay=0.03", "schedule.layers.conv1.freeze_epoch=4"])
    assert recipe.optimizer.layers["fc8"].weight_decay == 0.03
    assert recipe.optimizer.layers["fc8"].lr_factor == 1.0
    assert recipe.schedule.layers["conv1"].freeze_epoch == 4


def test_an_inline_table_is_merged_into_the_section():
    recipe = load_recipe("as-run-2012", ["augment={flip=false}"])
    assert (recipe.augment.flip, recipe.augment.crop_shared_by) == (False, 32)


def test_none_takes_an_optional_value_of_the_file_back():
    assert load_recipe("as-run-2012").augment.color_noise_until_epoch == 67
    assert load_recipe("as-run-2012", ["augment.color_noise_until_epoch=none"]).augment.color_noise_until_epoch is None


# ---------------------------------------------------------------- recipes based on others


def write(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(text)


def test_a_recipe_says_only_in_what_it_differs_from_its_base(tmp_path):
    own = '[model]\nactivation = "tanh"\n[schedule.layers.conv1]\nfreeze_epoch = 9\n'
    write(tmp_path, mine=f'base = "as-run-2012"\n{own}')
    base, mine = load_recipe("as-run-2012"), load_recipe(tmp_path / "mine.toml")
    assert diff_recipes(base, mine) == [
        ("model.activation", None, "tanh"),
        ("schedule.layers.conv1.freeze_epoch", None, 9.0),
    ]
    assert load_recipe(tmp_path / "mine.toml", ["model.activation=none"]).model == base.model, "overrides are last"


def test_what_is_written_of_a_run_has_no_base_any_more(tmp_path):
    write(tmp_path, mine='base = "as-run-2012"\n[model]\nactivation = "tanh"\n')
    recipe = load_recipe(tmp_path / "mine.toml")
    assert "base" not in tomllib.loads(to_toml(recipe))
    assert from_toml_text(to_toml(recipe)) == recipe


def test_a_base_can_be_a_file_beside_it_and_have_a_base_itself(tmp_path):
    (tmp_path / "deep").mkdir()
    write(tmp_path, one='base = "digits"\nseed = 1\n[train]\nepochs = 3\n')
    write(tmp_path / "deep", two='base = "../one.toml"\n[train]\nepochs = 4\n', three='base = "two.toml"\n')
    assert load_recipe(tmp_path / "deep" / "three.toml") == load_recipe("digits", ["seed=1", "train.epochs=4"])


@pytest.mark.parametrize(
    ("base", "says"),
    [
        ('"as-run-2021"', ["no recipe is named 'as-run-2021'", "did you mean 'as-run-2012'?"]),
        ('"nowhere.toml"', ["nowhere.toml does not exist"]),
        ("3", ["base", "mine.toml", "in quotes"]),
        ('"mine.toml"', ["mine.toml -> ", "is a circle"]),
        ('"other.toml"', ["mine.toml -> ", "other.toml -> ", "is a circle"]),
        ('"deep/around.toml"', ["mine.toml -> ", "around.toml -> ", "is a circle"]),
        ('"broken.toml"', ["broken.toml is not valid TOML"]),
    ],
)
def test_a_base_that_cannot_be_is_refused(tmp_path, base, says):
    (tmp_path / "deep").mkdir()
    write(tmp_path, mine=f"base = {base}\n", other='base = "mine.toml"\n', broken="x = = 3")
    write(tmp_path / "deep", around='base = "../mine.toml"\n')
    with pytest.raises(UserError) as caught:
        load_recipe(tmp_path / "mine.toml")
    for part in says:
        assert part in str(caught.value)


# ---------------------------------------------------------------- messages


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("optimizer.lrr=1", ["unknown key 'optimizer.lrr'", "did you mean 'optimizer.lr'?", "command line"]),
        ("lr=1", ["unknown key 'lr'", "'optimizer.lr'"]),
        ("optimizer.epochs=3", ["unknown key 'optimizer.epochs'", "'train.epochs'"]),
        ("optimiser.lr=1", ["unknown key 'optimiser'", "'optimizer'"]),
        ("zzz.lr=1", ["unknown key 'zzz'", "the sections are seed, model, data"]),
        ("schedule.layers.conv1.nam=steps", ["'schedule.layers.conv1.name'"]),
        ("optimizer.layers.fc8.wd=1", ["optimizer.layers.fc8 has the keys lr_factor, weight_decay"]),
        ("optimizer.lr=fast", ["optimizer.lr", '"fast"', "must be a number, not text"]),
        ("optimizer.lr=.1", ["optimizer.lr", "must be a number", "as in 0.1"]),
        ("optimizer.lr=true", ["optimizer.lr", "must be a number, not a truth value"]),
        ("optimizer.lr=0", ["optimizer.lr", "= 0 must be greater than 0"]),
        ("optimizer.lr=nan", ["optimizer.lr", "must be a finite number"]),
        ("optimizer.momentum=1.0", ["optimizer.momentum", "must be less than 1"]),
        ("train.batch_size=1.5", ["train.batch_size", "= 1.5 must be a whole number"]),
        ("train.batch_size=true", ["train.batch_size", "must be a whole number, not a truth value"]),
        ("train.batch_size=0", ["train.batch_size", "must be at least 1"]),
        ("augment.flip=1", ["augment.flip", "must be true or false"]),
        ("augment.flip=True", ["augment.flip", "write true, without capitals or quotes"]),
        ("logging.wandb_project=2012", ["logging.wandb_project", "must be text", "quotes"]),
        ("model.name=as-run", ["model.name", "is not one of as_run, paper", "did you mean 'as_run'?"]),
        ("evaluate.views=ten", ["evaluate.views", "center, flip, ten_crop"]),
        ("schedule.milestones=3", ["schedule.milestones", "must be a list"]),
        ("model.without=norm1", ["model.without", 'must be a list such as [25, 51] or ["norm1", "norm2"]']),
        ("model.without=[1]", ["model.without[0]", "must be text"]),
        ("model.activation=gelu", ["model.activation", "is not one of relu, tanh, silu"]),
        ("model.pooling=none", ["model.pooling", "= none"]),
        ("base=paper", ["unknown key 'base'"]),
        ("schedule.milestones=[1, true]", ["schedule.milestones[1]", "not a truth value"]),
        ("schedule.milestones=[1, 2]", ["schedule", "must have the same length"]),
        ("schedule.name=steps", ["schedule", "needs milestones and factors"]),
        ("optimizer=3", ["optimizer", "must be a table of keys"]),
        ("train.batch_size=none", ["train.batch_size", "= none must be a whole number"]),
        ("seed.x=3", ["seed", "= {x = 3} must be a whole number"]),
    ],
)
def test_a_wrong_value_is_named_with_its_key_and_what_is_allowed(override, says):
    text = message(override)
    for part in says:
        assert part in text
    assert "\n" not in text, "one problem is one line"


def test_a_key_of_a_file_that_is_a_value_has_no_keys(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("[optimizer]\nlr = 0.5\n")
    assert "optimizer.lr is a single value" in message("optimizer.lr.x=1", recipe=file)


@pytest.mark.parametrize(
    ("milestones", "factors", "says"),
    [
        ("[2, 1]", "[0.1, 0.01]", "ascending order"),
        ("[1, 2]", "[0.1]", "same length"),
        ("[1, -2]", "[0.1, 0.01]", "at least 0"),
    ],
)
def test_incomplete_steps_are_refused(milestones, factors, says):
    overrides = ("schedule.name=steps", f"schedule.milestones={milestones}", f"schedule.factors={factors}")
    assert says in message(*overrides)


def test_all_problems_are_told_at_once():
    text = message("optimizer.lrr=1", "train.batch_size=x", "nonsense", "augment.flip=2")
    assert text.startswith("4 problems")
    for part in ("optimizer.lrr", "train.batch_size", "'nonsense'", "augment.flip"):
        assert part in text


def test_a_problem_says_whether_the_file_or_the_command_line_made_it(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("[optimizer]\nlr = -1\n")
    text = message("train.epochs=-1", recipe=file)
    assert f"optimizer.lr ({file})" in text
    assert "train.epochs (command line)" in text


def test_malformed_toml_names_file_and_line(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("seed = 1\n[model\n")
    text = message(recipe=file)
    assert str(file) in text and "line 2" in text


def test_an_unknown_recipe_lists_the_names_and_suggests_the_nearest():
    text = message(recipe="as_run_2012")
    assert "did you mean 'as-run-2012'?" in text
    for name in recipe_names():
        assert name in text


def test_a_missing_or_binary_recipe_file_is_named(tmp_path):
    assert "does not exist" in message(recipe=str(tmp_path / "no.toml"))
    file = tmp_path / "weights.toml"
    file.write_bytes(b"\x80\x81\xff")
    assert "is not text" in message(recipe=file)


def test_a_runs_folder_stands_for_its_resolved_recipe(tmp_path):
    recipe = load_recipe("cifar-quick", ["seed=7"])
    (tmp_path / "config.toml").write_text(to_toml(recipe))
    assert load_recipe(tmp_path) == load_recipe(str(tmp_path)) == recipe


# ---------------------------------------------------------------- writing and comparing


def test_toml_states_every_value_that_is_set():
    keys = dict(_flat(tomllib.loads(to_toml(Recipe()))))
    unset = {
        key for key in known_keys() if key not in keys and "NAME" not in key and not key.startswith("schedule.bias")
    }
    for key in unset:
        section, _, name = key.rpartition(".")
        assert getattr(getattr(Recipe(), section), name) is None, key


def _flat(table, prefix=""):
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def test_text_with_quotes_and_control_characters_survives():
    recipe = from_toml_text("")
    logging = recipe.logging.model_copy(update={"wandb_project": 'a "b" \\ \t\n\x7f\u00e4'})
    recipe = recipe.model_copy(update={"logging": logging})
    assert from_toml_text(to_toml(recipe)) == recipe


def test_a_difference_names_key_and_both_values():
    a, b = load_recipe("digits"), load_recipe("digits", ["optimizer.lr=0.5", 'schedule.bias={name="constant"}'])
    assert diff_recipes(a, b) == [
        ("optimizer.lr", a.optimizer.lr, 0.5),
        ("schedule.bias.name", None, "constant"),
    ]
    assert diff_recipes(a, a) == []


def test_a_layer_of_one_side_shows_only_what_it_changes():
    a = load_recipe("digits")
    b = load_recipe("digits", ["optimizer.layers.fc8.weight_decay=0.03"])
    assert diff_recipes(a, b) == [("optimizer.layers.fc8.weight_decay", None, 0.03)]
    assert diff_recipes(b, a) == [("optimizer.layers.fc8.weight_decay", 0.03, None)]


def test_an_empty_table_takes_away_what_was_there():
    assert load_recipe("cifar-19pct").optimizer.layers != {}
    assert load_recipe("cifar-19pct", ["optimizer.layers={}"]).optimizer.layers == {}
    kept = load_recipe("cifar-19pct", ["optimizer.layers={conv1 = {lr_factor = 0.5}}"]).optimizer.layers
    assert set(kept) == {"conv1", "fc10"}, "a table with something in it is merged"
