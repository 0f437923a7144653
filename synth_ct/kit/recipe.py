"""What changes a result, and nothing else: frozen, typed, unknown fields refused."""

from pydantic import BaseModel, ConfigDict


class Recipe(BaseModel):
    """The base of every stage's recipe. Where and how fast a stage runs does not belong in one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
