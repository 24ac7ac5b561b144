"""A name belongs to one class, wherever it is defined."""

import pytest

from sae_lens_contrastive.registry import Registry


def made(name, module):
    return type(name, (), {"__module__": module})


def test_a_module_that_is_loaded_again_replaces_its_own_class():
    registry = Registry("intervention")
    registry.register("clamp")(made("Clamp", "package.clamp"))
    again = registry.register("clamp")(made("Clamp", "package.clamp"))
    assert registry.named("clamp") is again


@pytest.mark.parametrize("other", [("Clamp", "__main__"), ("Other", "package.clamp")])
def test_another_class_is_refused_even_if_it_is_called_the_same(other):
    registry = Registry("intervention")
    first = registry.register("clamp")(made("Clamp", "package.clamp"))
    said = r"The intervention 'clamp' is already registered as Clamp of package\.clamp\. Take another name\."
    with pytest.raises(ValueError, match=said):
        registry.register("clamp")(made(*other))
    assert registry.named("clamp") is first
