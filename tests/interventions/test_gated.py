import pytest
import torch

from sae_lens_contrastive.errors import ConfigError, UserError
from sae_lens_contrastive.interventions import FittedGated, Gated, TokenTable


def table(*hot, counts=None):
    """Activations of two features on four tokens a prompt, the first `hot` of which fire, with their table."""
    fires = torch.tensor([[token < n for token in range(4)] for n in hot]).flatten()
    acts = torch.zeros(len(fires), 2)
    acts[fires, torch.arange(int(fires.sum())) % 2] = 1.0
    prompt = torch.arange(len(hot)).repeat_interleave(4)
    every = torch.ones(len(fires), dtype=torch.bool)
    return acts, TokenTable(prompt, every if counts is None else torch.tensor(counts).flatten())


def edited_prompts(acts, tokens, intervention):
    changed = (intervention(acts, tokens) != acts).any(dim=1)
    return sorted(set(tokens.prompt[changed].tolist()))


@pytest.mark.parametrize(
    ("percentile", "threshold"),
    [(0, 0.0), (50, 0.25), (75, 0.5), (100, 1.0), (87.5, 0.75)],  # the last one halfway between two contexts
)
def test_the_threshold_is_a_percentile_of_rho_on_retain_text(percentile, threshold):
    retain = table(2, 0, 4, 1, 0)  # rho of 0, 0, 0.25, 0.5, 1
    assert Gated(5.0, gate_percentile=percentile).fitted(*retain).threshold == threshold


@pytest.mark.parametrize(("least", "threshold"), [(0.0, 0.25), (0.2, 0.25), (0.6, 0.6)])
def test_the_least_share_counts_where_retain_text_is_more_silent(least, threshold):
    gated = Gated(5.0, gate_percentile=50, least_share=least).fitted(*table(2, 0, 4, 1, 0))
    assert gated.threshold == threshold
    acts, tokens = table(0, 1, 2, 3)
    assert edited_prompts(acts, tokens, gated) == [n for n in range(4) if n / 4 > threshold]


def test_only_prompts_busier_than_retain_text_are_clamped():
    gated = Gated(5.0, gate_percentile=75).fitted(*table(2, 0, 4, 1, 0))
    acts, tokens = table(1, 2, 3, 4)
    assert edited_prompts(acts, tokens, gated) == [2, 3]  # a rho at the threshold of 0.5 does not exceed it
    edited = gated(acts, tokens)
    assert torch.equal(edited[8:], torch.where(acts[8:] > 0, -5.0, acts[8:]))


def test_hot_token_clamps_all_features_of_a_firing_token():
    acts, tokens = table(2, 4)
    edited = FittedGated(Gated(5.0, hot_token=True), threshold=0.5)(acts, tokens)
    assert torch.equal(edited[:4], acts[:4])
    assert edited[4:].tolist() == [[-5.0, -5.0]] * 4


def test_tokens_that_do_not_count_have_no_say_but_are_edited():
    """Of the second prompt only the first two tokens count, both of which fire; of the third none."""
    counts = [[True] * 4, [True, True, False, False], [False] * 4]
    acts, tokens = table(2, 3, 4, counts=counts)
    gated = FittedGated(Gated(5.0), threshold=0.5)
    assert edited_prompts(acts, tokens, gated) == [1]
    assert (gated(acts, tokens)[4:7] == -5.0).any(dim=1).all()
    assert edited_prompts(acts, tokens, FittedGated(Gated(5.0), threshold=0.0)) == [0, 1]


def test_contexts_without_counted_tokens_do_not_pull_the_threshold_down():
    counts = [[True] * 4, [False] * 4, [False] * 4]
    assert Gated(5.0, gate_percentile=50).fitted(*table(3, 4, 0, counts=counts)).threshold == 0.75


def test_prompt_numbers_may_have_gaps_and_any_order():
    acts, tokens = table(4, 1)
    shuffled = torch.tensor([4, 0, 5, 1, 6, 2, 7, 3])
    scattered = TokenTable(torch.where(tokens.prompt == 0, 7, 2)[shuffled], tokens.counts[shuffled])
    assert edited_prompts(acts[shuffled], scattered, FittedGated(Gated(5.0), threshold=0.5)) == [7]


def test_nothing_to_edit():
    gated = FittedGated(Gated(5.0), threshold=0.0)
    no_tokens = TokenTable(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.bool))
    assert gated(torch.zeros(0, 2), no_tokens).shape == (0, 2)
    _, tokens = table(1, 2)
    assert gated(torch.zeros(8, 0), tokens).shape == (8, 0)


def test_a_gate_is_fitted_before_it_is_used():
    assert Gated.needs_retain_text
    with pytest.raises(ConfigError, match=r"Call fitted\(acts, tokens\) with activations on retain text"):
        Gated(5.0)(*table(1))
    with pytest.raises(UserError, match="no retain context has a token that counts"):
        Gated(5.0).fitted(*table(1, counts=[[False] * 4]))


def test_a_fitted_gate_is_fitted_anew_for_other_features():
    fitted = Gated(5.0, gate_percentile=100).fitted(*table(1))
    assert fitted.fitted(*table(3)) == FittedGated(Gated(5.0, gate_percentile=100), threshold=0.75)


@pytest.mark.parametrize("percentile", [-1.0, 100.5, float("nan")])
def test_a_percentile_is_between_0_and_100(percentile):
    with pytest.raises(ConfigError, match=r"gate_percentile is .* Give one in \[0, 100\], such as 95"):
        Gated(5.0, gate_percentile=percentile)


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_least_share_is_below_1(share):
    with pytest.raises(ConfigError, match=r"least_share is .* Give a share of tokens in \[0, 1\), such as 0.1"):
        Gated(5.0, least_share=share)
