import pytest
import torch

from sae_lens_contrastive.models import PackedModel, PackedRows, can_pack, packed, residual_at_hook

HOOK = "blocks.19.hook_resid_post"
# The trunk is longer than the sliding window of 16.
TRUNK = torch.randint(5, 120, (21,), generator=torch.Generator().manual_seed(1)).tolist()
ENDINGS = [[30, 31, 32], [40], [50, 51]]
TOKENS = TRUNK + [token for ending in ENDINGS for token in ending]
BRANCH = [0] * len(TRUNK) + [k for k, ending in enumerate(ENDINGS, start=1) for _ in ending]
POSITIONS = [*range(len(TRUNK)), *(len(TRUNK) + i for ending in ENDINGS for i in range(len(ending)))]
PLACES = [len(TRUNK) - 1, *range(len(TRUNK), len(TOKENS))]


def rows(part=slice(None), n=1, others=()):
    """The row, cut, n times, and rows of other lengths."""
    cut = [(TOKENS[part], POSITIONS[part], BRANCH[part])] * n + list(others)
    return PackedRows.of(*zip(*cut, strict=True), "cpu")


def alone(model, edit=None):
    """Logits at PLACES of every ending after the trunk in a sequence of its own, the residual edited at token 5."""
    logits = []
    for ending in ENDINGS:
        tokens = torch.tensor([[*TRUNK, *ending]])

        def hook(residual, hook):
            changed = residual.clone()
            changed[:, 5] += 0 if edit is None else edit
            return changed

        whole = model.run_with_hooks(tokens, fwd_hooks=[(HOOK, hook)])[0]
        logits += [*([whole[len(TRUNK) - 1]] if not logits else []), *whole[len(TRUNK) :]]
    return torch.stack(logits)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_branches_read_as_if_each_followed_the_trunk_alone(tiny):
    model = PackedModel(tiny, HOOK)
    # A longer row beside it makes pads.
    longer = ([7] * 40, list(range(40)), [0] * 40)
    batch = rows(others=[longer])
    residual = model.residual(batch)
    for k, ending in enumerate(ENDINGS, start=1):
        own = [place for place, branch in enumerate(BRANCH) if branch in (0, k)]
        close(residual[0, own], residual_at_hook(tiny, HOOK, torch.tensor([[*TRUNK, *ending]]))[0])
    wanted = torch.tensor([PLACES, [3, *[-1] * (len(PLACES) - 1)]])
    logits = model.logits(batch, residual, wanted)
    assert len(logits) == len(PLACES) + 1
    close(logits[:-1], alone(tiny))
    close(logits[-1], tiny(torch.tensor([longer[0]]))[0, 3])


@pytest.mark.parametrize("start", [1, 5])
def test_what_precedes_an_edit_runs_once_for_all_edits(tiny, start):
    model = PackedModel(tiny, HOOK)
    residual = model.residual(rows())
    past = model.keys_and_values(rows(slice(start)), residual[:, :start])
    assert past.width == start
    edits = torch.stack([torch.linspace(-3, 3, 32), torch.zeros(32), torch.full((32,), 2.0)])
    edited = residual[:, start:].repeat(3, 1, 1)
    edited[:, 5 - start] += edits
    wanted = torch.tensor([[place - start for place in PLACES]] * 3)
    logits = model.logits(rows(slice(start, None), n=3), edited, wanted, past.rows(torch.tensor([0, 0, 0])))
    close(logits, torch.cat([alone(tiny, edit) for edit in edits]))
    assert (logits[: len(PLACES)] - alone(tiny)).abs().max() > 1e-3


def test_an_edit_leaves_no_hook_behind(tiny):
    before = tiny(torch.tensor([TRUNK]))
    model = PackedModel(tiny, HOOK)
    residual = model.residual(rows())
    model.keys_and_values(rows(slice(4)), residual[:, :4] + 100)
    model.logits(rows(), residual + 100, torch.tensor([PLACES]))
    assert torch.equal(tiny(torch.tensor([TRUNK])), before)
    assert not any("forward" in vars(block) for block in tiny.blocks)


def test_models_are_packed_only_if_that_gives_their_own_logits(tiny, hooked_transformer, monkeypatch):
    assert can_pack(tiny, HOOK)
    assert can_pack(tiny, "blocks.3.hook_resid_pre")
    # Nothing below, nothing above.
    assert not can_pack(tiny, "blocks.0.hook_resid_pre")
    assert not can_pack(tiny, "blocks.25.hook_resid_post")
    assert not can_pack(hooked_transformer, "blocks.1.hook_resid_post")
    everything = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    monkeypatch.setattr(packed.PackedRows, "mask", lambda self, past=None, window=None: everything)
    assert not can_pack(tiny, HOOK)


def test_a_wrong_sliding_window_is_found(tiny, monkeypatch):
    original = packed.PackedRows.mask
    monkeypatch.setattr(packed.PackedRows, "mask", lambda self, past=None, window=None: original(self, past, None))
    assert not can_pack(tiny, HOOK)
