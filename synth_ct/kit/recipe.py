"""What changes a result, and nothing else: frozen, typed, unknown fields refused."""

from types import NoneType
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

NOTHING = "none"
"""How text says None, for which TOML has no word."""


class Recipe(BaseModel):
    """The base of every stage's recipe. Where and how fast a stage runs does not belong in one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _nothing_in_words(cls, fields: Any) -> Any:
        """A field that may be empty is empty where text says `none`."""
        if not isinstance(fields, dict):
            return fields
        optional = {n for n, f in cls.model_fields.items() if NoneType in get_args(f.annotation)}
        return {n: None if n in optional and v == NOTHING else v for n, v in fields.items()}

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: Any) -> Any:
        """Python takes true for 1, and a person who writes it meant something else."""
        kind = cls.model_fields[info.field_name or ""].annotation
        values = value if isinstance(value, list | tuple) else [value]
        if {int, float} & {kind, *get_args(kind)} and any(isinstance(v, bool) for v in values):
            raise ValueError("true and false are no numbers; give one")
        return value


def kind_of(source: Any) -> Any:
    """Which of several recipes a table or a recipe is, by its field `kind`: a Discriminator."""
    return source.get("kind") if isinstance(source, dict) else getattr(source, "kind", None)


AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


def changed(recipe: AnyRecipe, **fields: Any) -> AnyRecipe:
    """The same with other values in some fields, validated anew."""
    return type(recipe)(**(dict(recipe) | fields))
