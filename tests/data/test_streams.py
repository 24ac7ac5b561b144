"""Streams serve the host's batches, lose and repeat no token, and continue bit for bit from a saved state."""

import threading
import time
import warnings
from contextlib import closing, suppress

import pytest
import torch
from datasets import Array2D, Dataset, Features
from made_streams import HOOK, TEXTS, NumberedStore, Numbers, same, take, through_a_file
from sae_lens.training.activations_store import ActivationsStore
from sae_lens.training.mixing_buffer import mixing_buffer
from sae_lens.training.prefetch import PrefetchingIterator

from sae_lens_contrastive.data.activations import DomainMix
from sae_lens_contrastive.data.streams import HookStream, PrefetchedStream, StreamedActivations, generator_at
from sae_lens_contrastive.errors import ConfigError, UserError
from sae_lens_contrastive.losses import FORGET, GENERAL, RETAIN
from sae_lens_contrastive.models import ModelAboveHook, residual_at_hook


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("sizes", [(14,), (16, 9, 13), (40, 0, 3)])
@pytest.mark.parametrize("batch_size", [1, 5, 24])
def test_the_buffer_mixes_as_the_hosts(fraction, sizes, batch_size):
    mine = take(StreamedActivations(NumberedStore(sizes, fraction), batch_size, seed=4), 60)
    torch.manual_seed(4)
    host = mixing_buffer(24, batch_size, NumberedStore(sizes, fraction).batches_of_all_epochs(), fraction)
    assert same(mine, take(host, 60))


def test_the_hosts_store_gives_the_same_batches(make_store):
    stream = StreamedActivations(make_store(), 20, seed=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mine = take(stream, 70)
    assert stream.n_epochs >= 2
    torch.manual_seed(4)
    assert same(mine, take(iter(make_store()), 70))


def test_the_stream_draws_nothing_from_the_global_generator(make_store):
    stream = StreamedActivations(make_store(), 20, seed=4)
    before = torch.get_rng_state()
    take(stream, 20)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_epoch_holds_every_filtered_token_once(tiny, make_store):
    reader, epoch = make_store(), []
    with suppress(StopIteration):
        while True:
            tokens = reader.get_batch_tokens(raise_at_epoch_end=True)
            residual = tiny.run_with_cache(tokens, names_filter=[HOOK])[1][HOOK]
            epoch.append(residual[~torch.isin(tokens, torch.tensor(tiny.tokenizer.all_special_ids))].tolist())
    # Contexts of BOS and 15 tokens, two in a batch; all texts but the first begin with BOS inside a context.
    assert sum(map(len, epoch)) == len(epoch) * 2 * 15 - (len(TEXTS) - 1)

    stream, served = StreamedActivations(make_store(), 20, seed=0), []
    while stream.n_epochs < 2:
        served += next(stream).tolist()
        # Whatever the model has read was served, or waits for its turn, once.
        read = epoch * stream.n_epochs + epoch[: stream.n_model_batches]
        expected = [row for batch in read for row in batch]
        found = served + stream.state_dict()["buffer"].tolist()
        assert found != expected, "the order is another"
        assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("n_done", [0, 1, 3, 19, 30, 50])
def test_a_streamed_run_continues_bit_for_bit(n_done, make_store, monkeypatch):
    whole = take(StreamedActivations(make_store(), 20, seed=1), n_done + 30)
    first = StreamedActivations(make_store(), 20, seed=1)
    assert same(take(first, n_done), whole[:n_done])
    state = first.state_dict()
    saved = through_a_file(state)
    assert same(take(first, 30), whole[n_done:]), "saving must not change what comes next"
    assert all(torch.equal(state[name], saved[name]) for name in saved), "nor may what comes next change the state"

    store = make_store()
    second = StreamedActivations(store, 20, seed=2)
    with monkeypatch.context() as patch:
        patch.setattr(store, "get_activations", lambda *_: pytest.fail("the model ran to skip texts"))
        second.load_state_dict(saved)
    assert same(take(second, 30), whole[n_done:])
    assert (second.n_epochs, second.n_model_batches) == (first.n_epochs, first.n_model_batches)


def test_those_runs_cross_the_end_of_an_epoch(make_store):
    stream = StreamedActivations(make_store(), 20, seed=1)
    epochs = []
    for _ in range(80):
        next(stream)
        epochs.append(stream.n_epochs)
    # Saved before the first end (3), in the second epoch (30) and in the third (50); all resumed runs pass an end.
    assert (epochs[2], epochs[29], epochs[49]) == (0, 1, 2)
    assert all(epochs[n + 29] > epochs[max(n - 1, 0)] for n in (0, 1, 3, 19, 30, 50))


def test_activations_the_host_cached_are_skipped_too(tmp_path):
    rows = torch.randn(10, 16, 4, generator=torch.Generator().manual_seed(0))
    features = Features({HOOK: Array2D((16, 4), "float32")})
    Dataset.from_dict({HOOK: rows.numpy()}, features=features).save_to_disk(tmp_path / "cached")

    def stream():
        store = ActivationsStore(
            None, None, False, HOOK, None, 16, 4, 6, 1, 2, 20, True, "none", torch.device("cpu"), "float32",
            cached_activations_path=str(tmp_path / "cached"),
        )  # fmt: skip
        return StreamedActivations(store, 20, seed=0)

    first = stream()
    take(first, 13)
    assert first.n_epochs == 1
    second = stream()
    second.load_state_dict(first.state_dict())
    assert same(take(first, 13), take(second, 13))


def test_a_state_is_loaded_into_an_unread_stream_only(make_store):
    stream = StreamedActivations(make_store(), 20, seed=1)
    next(stream)
    with pytest.raises(ValueError, match="Load the state into a new one"):
        stream.load_state_dict(stream.state_dict())


def test_a_corpus_that_shrank_is_refused_on_resuming(make_store):
    stream = StreamedActivations(make_store(), 20, seed=1)
    take(stream, 12)
    assert stream.n_model_batches > 3
    shrunk = StreamedActivations(make_store(TEXTS[:3]), 20, seed=1, label="forget")
    expected = rf"forget corpus ends after 3 batches of the model, but the saved run had read {stream.n_model_batches} "
    with pytest.raises(UserError, match=expected):
        shrunk.load_state_dict(stream.state_dict())


@pytest.mark.parametrize("texts", [["short"], ["longer than a context"]])
def test_a_corpus_smaller_than_a_batch_of_the_model_is_refused(texts, make_store):
    with pytest.raises(
        UserError, match=r"The retain corpus is smaller than one batch of the model \(2 x 16 tokens\)\. Give more text"
    ):
        next(StreamedActivations(make_store(texts), 20, seed=1, label="retain"))


def test_a_batch_that_the_buffer_cannot_hold_is_refused(make_store):
    with pytest.raises(ConfigError, match=r"n_batches_in_buffer 6 makes a buffer of 96 tokens .* fewer than the 97"):
        StreamedActivations(make_store(), 97, seed=1)


def _mix(make_store, texts=TEXTS):
    sizes = {GENERAL: 20, FORGET: 7, RETAIN: 5}
    return DomainMix(
        {domain: StreamedActivations(make_store(texts[domain:]), size, seed=domain) for domain, size in sizes.items()}
    )


@pytest.mark.parametrize("n_done", [0, 1, 25])
@pytest.mark.parametrize("prefetch", [1, 4])
def test_a_prefetched_mix_continues_bit_for_bit(n_done, prefetch, make_store):
    whole = take(_mix(make_store), n_done + 30)
    # One after the other: two threads must not run one model at a time.
    with closing(PrefetchedStream(_mix(make_store), prefetch)) as stream:
        assert same(take(stream, n_done), whole[:n_done])
        saved = through_a_file(stream.state_dict())
        assert same(take(stream, 30), whole[n_done:])
    with closing(PrefetchedStream(_mix(make_store), prefetch)) as stream:
        stream.load_state_dict(saved)
        assert same(take(stream, 30), whole[n_done:])


@pytest.mark.parametrize("delay", [0, 0.005])
def test_no_batch_is_lost_or_made_twice_however_often_the_state_is_saved(delay):
    stream, seen, most_ahead = PrefetchedStream(Numbers(), prefetch=3), [], 0
    for step in range(120):
        seen.append(next(stream)[0].item())
        if step % 7 < 4:
            time.sleep(delay)
            state = stream.state_dict()
            n_ahead = len(state.get("ahead", ()))
            assert int(state["stream.n"]) == len(seen) + n_ahead
            most_ahead = max(most_ahead, n_ahead)
    stream.close()
    assert seen == list(range(120))
    # As many waiting as the thread starts at, then a full queue and the batch under way.
    assert most_ahead <= 3 + 3 + 1


def test_the_thread_runs_ahead_and_pauses():
    source = Numbers()
    stream = PrefetchedStream(source, prefetch=3)
    with stream.paused():
        assert source.n == 0
    next(stream)
    _until(lambda: source.n == 5)  # one served, three queued, one waiting for a place
    with stream.paused():
        n = source.n
        stream_takes = [PrefetchingIterator.__next__(stream) for _ in range(3)]
        time.sleep(0.05)
        assert source.n == n
    assert [int(batch[0]) for batch in stream_takes] == [1, 2, 3]
    _until(lambda: source.n > n)
    stream.close()


def test_the_model_is_free_for_others_while_the_thread_pauses(tiny, make_store):
    # ModelAboveHook replaces the blocks below the hook: a thread that runs the model would run these.
    whole = take(StreamedActivations(make_store(), 20, seed=0), 12)
    tokens = torch.arange(5, 21)[None]
    residual = residual_at_hook(tiny, HOOK, tokens)
    expected = tiny(tokens)[0]
    with closing(PrefetchedStream(StreamedActivations(make_store(), 20, seed=0), prefetch=2)) as stream:
        for batch in whole:
            assert torch.equal(next(stream), batch)
            with stream.paused():
                logits = ModelAboveHook(tiny, HOOK)(tokens, residual, torch.ones_like(tokens, dtype=torch.bool))
            torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


def test_the_host_knows_it_for_its_own_and_closing_ends_the_thread():
    # Its evaluators pause a PrefetchingIterator while they put hooks on the model.
    n_threads = threading.active_count()
    stream = PrefetchedStream(Numbers(), prefetch=2)
    assert isinstance(stream, PrefetchingIterator)
    assert threading.active_count() == n_threads
    next(stream)
    assert threading.active_count() == n_threads + 1
    stream.close()
    assert threading.active_count() == n_threads
    assert list(stream) == []
    with pytest.raises(ValueError, match="Save its state before"):
        stream.state_dict()
    PrefetchedStream(Numbers(), prefetch=2).close()


def test_an_error_of_the_source_reaches_the_reader_after_the_batches_before_it():
    stream = PrefetchedStream(Numbers(fails_at=3), prefetch=8)
    assert [int(batch[0]) for batch in take(stream, 3)] == [0, 1, 2]
    with pytest.raises(RuntimeError, match="the model broke"):
        next(stream)
    stream.close()


def test_each_place_of_a_seed_has_its_own_numbers_whatever_the_size_of_the_seed():
    def drawn(seed, place):
        return torch.rand(4, generator=generator_at(seed, place)).tolist()

    assert torch.rand(4, generator=torch.Generator().manual_seed(3 * 1_000_003 + 7)).tolist() == drawn(3, 7)
    for seed in (0, 20240917123456, 2**63):
        assert drawn(seed, 5) == drawn(seed, 5) != drawn(seed, 6)


def test_a_thread_that_may_not_run_ahead_is_refused():
    with pytest.raises(ConfigError, match="prefetch is 0; it must be 1 or more"):
        PrefetchedStream(Numbers(), prefetch=0)


def test_a_hook_stream_names_its_batches_and_passes_everything_on():
    stream = HookStream(PrefetchedStream(Numbers(), prefetch=2), HOOK)
    batch = next(stream)
    assert list(batch) == [HOOK]
    assert batch[HOOK].tolist() == [[0], [0]]
    resumed = HookStream(PrefetchedStream(Numbers(), prefetch=2), HOOK)
    resumed.load_state_dict(stream.state_dict())
    assert [int(next(s)[HOOK][0]) for s in (stream, resumed)] == [1, 1]
    stream.close()
    resumed.close()
    assert list(stream) == []


def _until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)
