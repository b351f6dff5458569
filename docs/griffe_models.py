"""griffe extension: gives pydantic models the constructor that pydantic creates, so that the API pages show it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import griffe

MODEL_ROOTS = {"BaseModel", "FrozenModel"}


class ModelConstructors(griffe.Extension):
    """Add a constructor with one keyword for each field to every pydantic model of a package."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Find the models, base classes first; griffe calls this when it has loaded a package."""
        classes = list(_classes(pkg))
        models: dict[str, griffe.Class] = {}
        while found := [
            cls
            for cls in classes
            if cls.name not in models and _bases(cls) & (MODEL_ROOTS | models.keys())
        ]:
            models |= {cls.name: cls for cls in found}
        for cls in models.values():
            if "__init__" not in cls.members:
                cls.set_member("__init__", _constructor(cls, _fields(cls, models)))


def _classes(module: griffe.Module) -> Iterator[griffe.Class]:
    for member in module.members.values():
        if member.is_alias:
            continue
        if isinstance(member, griffe.Module):
            yield from _classes(member)
        elif isinstance(member, griffe.Class):
            yield member


def _bases(cls: griffe.Class) -> set[str]:
    return {str(base).rpartition(".")[2] for base in cls.bases}


def _fields(
    cls: griffe.Class, models: dict[str, griffe.Class]
) -> dict[str, griffe.Attribute]:
    """Return the fields of a model, those of its bases first."""
    fields: dict[str, griffe.Attribute] = {}
    for base in _bases(cls) & models.keys():
        fields |= _fields(models[base], models)
    own = {
        name: member
        for name, member in cls.members.items()
        if isinstance(member, griffe.Attribute)
    }
    return fields | {
        name: member
        for name, member in own.items()
        if member.annotation is not None
        and "ClassVar" not in str(member.annotation)
        and not name.startswith("_")
        and "property" not in member.labels
    }


def _constructor(
    cls: griffe.Class, fields: dict[str, griffe.Attribute]
) -> griffe.Function:
    parameters = [
        griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)
    ]
    for name, field in fields.items():
        default = None if field.value is None else str(field.value)
        parameters.append(
            griffe.Parameter(
                name,
                annotation=field.annotation,
                kind=griffe.ParameterKind.keyword_only,
                default=default,
            )
        )
    return griffe.Function(
        "__init__",
        parameters=griffe.Parameters(*parameters),
        parent=cls,
        lineno=cls.lineno,
    )
