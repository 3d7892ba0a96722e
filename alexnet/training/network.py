"""The network that a recipe describes."""

from __future__ import annotations

from alexnet.config import Recipe
from alexnet.models import AlexNet, create_model


def build_network(recipe: Recipe, num_classes: int) -> AlexNet:
    """The network with its initial weights. Raises UserError for values that do not go together."""
    model = recipe.model
    return create_model(
        model.name,
        num_classes,
        image_size=model.image_size,
        initialization=model.initialization,
        dropout=model.dropout,
        input_scale=model.input_scale,
        activation=model.activation,
        pooling=model.pooling,
        without=model.without,
        seed=recipe.seed,
    )
