import pytest
import torch

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.models import check_hook

TOKENS = torch.arange(5, 17).reshape(2, 6)


def _zero(value, hook):
    return torch.zeros_like(value)


@pytest.mark.parametrize(
    ("alias", "name"),
    [("blocks.19.hook_resid_post", "blocks.19.hook_out"), ("blocks.0.hook_mlp_out", "blocks.0.ln2_post.hook_out")],
)
def test_an_alias_is_cached_under_the_name_asked_for(tiny, alias, name):
    _, cache = tiny.run_with_cache(TOKENS, names_filter=[alias, name])
    assert set(cache.keys()) == {alias, name}
    assert torch.equal(cache[alias], cache[name])
    assert cache[alias].shape == (2, 6, 32)


def test_a_single_name_and_a_plain_dictionary_work_too(tiny):
    _, cache = tiny.run_with_cache(TOKENS, names_filter="blocks.3.hook_resid_post", return_cache_object=False)
    assert list(cache) == ["blocks.3.hook_resid_post"]


def test_a_filter_function_and_no_filter_are_the_hosts(tiny):
    _, cache = tiny.run_with_cache(TOKENS, names_filter=lambda name: name == "blocks.3.hook_out")
    assert "blocks.3.hook_out" in cache
    _, everything = tiny.run_with_cache(TOKENS)
    assert len(everything) > 26


def test_the_residual_stream_is_one_stream_under_all_its_names(tiny):
    names = ["blocks.4.hook_resid_post", "blocks.5.hook_resid_pre"]
    _, cache = tiny.run_with_cache(TOKENS, names_filter=names)
    assert torch.equal(cache[names[0]], cache[names[1]])


@pytest.mark.parametrize("name", ["blocks.19.hook_resid_post", "blocks.19.hook_out"])
def test_a_hook_on_an_alias_is_not_dropped(tiny, name):
    plain = tiny(TOKENS)
    edited = tiny.run_with_hooks(TOKENS, fwd_hooks=[(name, _zero)])
    assert not torch.allclose(edited, plain)
    # Nothing but the embedding of the position's own history reached the residual stream: all positions look alike.
    torch.testing.assert_close(edited, edited[:1, :1].expand_as(edited))
    assert torch.equal(tiny(TOKENS), plain)


def test_an_unknown_hook_is_refused_not_dropped(tiny):
    for run in (
        lambda: tiny.run_with_cache(TOKENS, names_filter=["blocks.3.hook_residual"]),
        lambda: tiny.run_with_hooks(TOKENS, fwd_hooks=[("blocks.3.hook_residual", _zero)]),
    ):
        with pytest.raises(ConfigError, match=r"Unknown hook 'blocks\.3\.hook_residual'.*L is 0 to 25"):
            run()


def test_check_hook_knows_the_width_of_every_hook(tiny, hooked_transformer):
    check_hook(tiny, "blocks.19.hook_resid_post")
    check_hook(tiny, "blocks.19.hook_resid_post", 32)
    check_hook(hooked_transformer, "blocks.2.hook_resid_post", 12)
    check_hook(hooked_transformer, "blocks.2.attn.hook_z", 3 * 4)


@pytest.mark.parametrize("hook_name", ["blocks.2.hook_resid_post", "blocks.2.hook_mlp_out"])
def test_a_wrong_width_names_the_right_one(tiny, hooked_transformer, hook_name):
    for model, width in ((tiny, 32), (hooked_transformer, 12)):
        with pytest.raises(ConfigError, match=rf"d_in is 64, .*'{hook_name}' have width {width}\. Set d_in: {width}\."):
            check_hook(model, hook_name, 64)


def test_a_layer_beyond_the_last_gets_a_layer_of_the_same_depth(tiny, hooked_transformer):
    with pytest.raises(
        ConfigError, match=r"layer 26, but the model has layers 0 to 25.* use blocks\.19\.hook_resid_post"
    ):
        check_hook(tiny, "blocks.26.hook_resid_post")
    with pytest.raises(
        ConfigError, match=r"layer 19, but the model has layers 0 to 2\. .*use blocks\.2\.hook_resid_post"
    ):
        check_hook(hooked_transformer, "blocks.19.hook_resid_post")


def test_a_misspelt_hook_gets_the_nearest_common_one(tiny):
    with pytest.raises(ConfigError, match=r"Unknown hook 'blocks\.19\.hook_resid_pst'\. Did you mean 'blocks\.L\."):
        check_hook(tiny, "blocks.19.hook_resid_pst")
