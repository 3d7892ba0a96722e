"""A recipe written as TOML and read again is the same recipe, whatever is in it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.config import (
    AugmentConfig,
    BiasScheduleConfig,
    DataConfig,
    LayerOptimizerConfig,
    LayerScheduleConfig,
    LoggingConfig,
    ModelConfig,
    OptimizerConfig,
    Recipe,
    ScheduleConfig,
    TrainConfig,
)
from alexnet.config_io import from_toml_text, to_toml

numbers = st.floats(0, 1e9, allow_nan=False)
positive = st.floats(1e-9, 1e9)
fractions = st.floats(0, 1, exclude_max=True)
optional_fractions = st.none() | fractions
layer_names = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8)


@st.composite
def step_lists(draw):
    milestones = sorted(draw(st.lists(numbers, min_size=1, max_size=4)))
    factors = draw(st.lists(numbers, min_size=len(milestones), max_size=len(milestones)))
    return {"name": "steps", "milestones": tuple(milestones), "factors": tuple(factors)}


schedule_fields = step_lists() | st.fixed_dictionaries(
    {"name": st.sampled_from(["constant", "plateau", "dexp", "cosine"]), "freeze_epoch": st.none() | numbers}
)
layer_schedules = schedule_fields.map(lambda fields: LayerScheduleConfig(**fields))


@st.composite
def bias_schedules(draw):
    layers = draw(st.dictionaries(layer_names, layer_schedules, max_size=2))
    return BiasScheduleConfig(**draw(schedule_fields), layers=layers)


@st.composite
def recipes(draw):
    return Recipe(
        seed=draw(st.integers(0, 2**63)),
        model=ModelConfig(
            activation=draw(st.none() | st.sampled_from(["relu", "tanh", "silu"])),
            pooling=draw(st.sampled_from(["overlapping", "non_overlapping"])),
            without=tuple(draw(st.lists(layer_names, max_size=3))),
        ),
        data=DataConfig(shuffle=draw(st.sampled_from(["each_epoch", "once", "never"]))),
        augment=AugmentConfig(flip=draw(st.booleans()), color_noise_until_epoch=draw(st.none() | numbers)),
        optimizer=OptimizerConfig(
            lr=draw(positive),
            momentum=draw(fractions),
            layers=draw(
                st.dictionaries(
                    layer_names,
                    st.builds(LayerOptimizerConfig, lr_factor=numbers, weight_decay=st.none() | numbers),
                    max_size=3,
                )
            ),
        ),
        schedule=ScheduleConfig(
            **draw(schedule_fields),
            bias=draw(st.none() | bias_schedules()),
            layers=draw(st.dictionaries(layer_names, layer_schedules, max_size=2)),
        ),
        train=TrainConfig(epochs=draw(positive), ema_decay=draw(optional_fractions)),
        logging=LoggingConfig(wandb_project=draw(st.text(st.characters(exclude_categories=("Cs",)), max_size=20))),
    )


@settings(max_examples=150, deadline=None)
@given(recipes())
def test_a_recipe_survives_being_written_and_read(recipe):
    text = to_toml(recipe)
    assert from_toml_text(text) == recipe
    assert to_toml(from_toml_text(text)) == text
