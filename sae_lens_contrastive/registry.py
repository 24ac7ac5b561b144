"""Classes by the names that configurations use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sae_lens_contrastive.errors import unknown_choice

T_REGISTERED = TypeVar("T_REGISTERED", bound=type[Any])


class Registry(dict[str, type[Any]]):
    """The classes of one kind by name; `kind` is what messages call one of them."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def register(self, name: str) -> Callable[[T_REGISTERED], T_REGISTERED]:
        """Register a class under `name`; `ValueError` if the name is taken by another class."""

        def register(registered: T_REGISTERED) -> T_REGISTERED:
            taken = self.get(name)
            # A module that is loaded again brings the same class anew.
            if taken is not None and _origin(taken) != _origin(registered):
                by = " of ".join(_origin(taken))
                raise ValueError(f"The {self.kind} {name!r} is already registered as {by}. Take another name.")
            self[name] = registered
            return registered

        return register

    def named(self, name: str) -> type[Any]:
        """Class registered under `name`; `ConfigError` for an unknown one."""
        if name not in self:
            register = f"register_{self.kind.replace(' ', '_')}"
            raise unknown_choice(self.kind, name, self, fix=f"Register your own with {register}.")
        return self[name]


def _origin(registered: type[Any]) -> tuple[str, str]:
    return registered.__qualname__, registered.__module__
