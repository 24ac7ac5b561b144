import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from made_streams import Numbers, same, take, through_a_file
from safetensors.torch import load_file, save_file

from sae_lens_contrastive.data.activations import (
    CachedActivations,
    DomainMix,
    collect_activations,
    domain_labels,
    domain_sizes,
)
from sae_lens_contrastive.errors import ConfigError, UserError
from sae_lens_contrastive.losses import FORGET, GENERAL, RETAIN


class Store:
    """Stands in for SAELens' store: batches of `size` numbered tokens, `n_batches` of them in an epoch."""

    store_batch_size_prompts, context_size, dtype = 2, 8, torch.float32

    def __init__(self, n_batches, size=10):
        self.batches = iter(torch.arange(n_batches * size * 3, dtype=torch.float32).reshape(n_batches, size, 3))
        self.n_read = 0

    def get_filtered_llm_batch(self, raise_on_epoch_end):
        assert raise_on_epoch_end
        self.n_read += 1
        return next(self.batches)


class Constant(Numbers):
    """Batches of one number; notes when it is closed."""

    def __init__(self, value=0, size=1):
        super().__init__()
        self.batch, self.calls = torch.full((size, 2), float(value)), []

    def __next__(self):
        self.n += 1
        return self.batch

    def close(self):
        self.calls.append("closed")


def test_shares_are_rounded_and_the_rest_is_general():
    assert domain_sizes(2048, 0.25, 0.25) == {GENERAL: 1024, FORGET: 512, RETAIN: 512}
    assert domain_sizes(10, 0.31, 0.12) == {GENERAL: 6, FORGET: 3, RETAIN: 1}


@pytest.mark.parametrize(
    ("batch", "forget", "retain"), [(10, 0.5, 0.5), (10, 0.6, 0.5), (10, 0.01, 0.3), (10, 0.3, 0.01)]
)
def test_a_domain_without_tokens_is_refused(batch, forget, retain):
    with pytest.raises(ConfigError, match=rf"forget_share {forget} and retain_share {retain} leave .*sum below 1"):
        domain_sizes(batch, forget, retain)


def test_batches_are_general_forget_retain_and_the_labels_say_so():
    sizes = domain_sizes(8, 0.25, 0.375)
    # The streams are given in another order than the batch has.
    mix = DomainMix({domain: Constant(domain, size) for domain, size in sorted(sizes.items(), reverse=True)})
    labels = domain_labels(sizes)
    assert labels.tolist() == [GENERAL] * 3 + [FORGET] * 2 + [RETAIN] * 3
    for batch in take(mix, 3):
        assert torch.equal(batch, labels[:, None].expand(8, 2).float())


def test_a_mix_continues_each_of_its_streams(collected):
    def mix():
        sizes = {FORGET: 2, GENERAL: 5, RETAIN: 3}
        return DomainMix({domain: CachedActivations(collected, size, seed=domain) for domain, size in sizes.items()})

    whole, first, resumed = take(mix(), 20), mix(), mix()
    take(first, 9)
    state = through_a_file(first.state_dict())
    assert sorted(state) == [f"{domain}.n_batches" for domain in (GENERAL, FORGET, RETAIN)]
    resumed.load_state_dict(state)
    assert same(take(resumed, 11), whole[9:])


def test_a_mix_closes_all_its_streams():
    streams = {domain: Constant() for domain in (GENERAL, FORGET, RETAIN)}
    DomainMix(streams).close()
    assert [stream.calls for stream in streams.values()] == [["closed"]] * 3


@pytest.fixture
def collected(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"activations": torch.arange(23 * 2, dtype=torch.float32).reshape(23, 2)}, path)
    return path


def test_an_epoch_shows_every_token_at_most_once_and_all_that_fill_a_batch(collected):
    stream = CachedActivations(collected, batch_size=5, seed=0)
    assert stream.n_tokens == 23
    for _ in range(3):
        rows = torch.cat(take(stream, 4))
        assert len(rows) == 20
        assert len(rows.unique(dim=0)) == 20


def test_a_whole_number_of_batches_shows_every_token_once(tmp_path):
    tokens = torch.arange(20, dtype=torch.float32)[:, None]
    save_file({"activations": tokens}, tmp_path / "a.safetensors")
    stream = CachedActivations(tmp_path / "a.safetensors", batch_size=5, seed=3)
    epochs = [torch.cat(take(stream, 4)).flatten().tolist() for _ in range(2)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(20))] * 2
    assert epochs[0] != epochs[1]


def test_the_seed_alone_decides_the_order(collected):
    first, second, other = (take(CachedActivations(collected, 5, seed), 9) for seed in (1, 1, 2))
    assert same(first, second)
    assert not same(first, other)


def test_a_seed_may_be_as_long_as_a_timestamp(collected):
    first, second = (take(CachedActivations(collected, 5, seed), 9) for seed in (20240917123456, 20240917123457))
    assert not same(first, second)


@pytest.mark.parametrize("n_done", [0, 3, 4, 6])
def test_a_stream_of_cached_activations_continues_bit_for_bit(collected, n_done):
    whole = take(CachedActivations(collected, 5, seed=1), 12)
    first = CachedActivations(collected, 5, seed=1)
    take(first, n_done)
    state = through_a_file(first.state_dict())
    assert same(take(first, 12 - n_done), whole[n_done:])
    # The position may also go back, as after a comparison of two runs on one stream.
    for resumed in (CachedActivations(collected, 5, seed=1), first):
        resumed.load_state_dict(state)
        assert same(take(resumed, 12 - n_done), whole[n_done:])


def test_too_few_tokens_for_a_batch_are_refused(collected):
    with pytest.raises(
        UserError, match=r"holds 23 tokens, fewer than the 24 that a batch takes.*lower train_batch_size_tokens"
    ):
        CachedActivations(collected, batch_size=24, seed=0)


def test_collection_ends_at_the_token_limit_or_the_end_of_the_text(tmp_path):
    store = Store(n_batches=5)
    whole = torch.arange(150, dtype=torch.float32).reshape(50, 3)
    path = collect_activations(store, tmp_path / "a.safetensors", 24, "forget", "f")
    assert store.n_read == 3
    assert torch.equal(load_file(path)["activations"], whole[:24])
    path = collect_activations(Store(5), tmp_path / "b.safetensors", 10**6, "forget", "f")
    assert torch.equal(load_file(path)["activations"], whole)


def test_collected_activations_are_reused_by_fingerprint_only(tmp_path):
    path = tmp_path / "a.safetensors"
    collect_activations(Store(2), path, 20, "retain", "one")
    before = path.read_bytes()
    unread = Store(4)
    assert collect_activations(unread, path, 20, "retain", "one") == path
    assert (unread.n_read, path.read_bytes()) == (0, before)
    collect_activations(Store(4), path, 40, "retain", "two")
    assert len(load_file(path)["activations"]) == 40


@pytest.mark.parametrize("left", [0, 5, 60, -1])
def test_a_damaged_file_is_collected_again(tmp_path, left):
    path = tmp_path / "a.safetensors"
    collect_activations(Store(2), path, 20, "retain", "one")
    whole = path.read_bytes()
    os.truncate(path, left if left >= 0 else len(whole) + left)
    collect_activations(Store(2), path, 20, "retain", "one")
    assert path.read_bytes() == whole


def test_an_interrupted_collection_leaves_no_file(tmp_path):
    class Interrupted(Store):
        def get_filtered_llm_batch(self, raise_on_epoch_end):
            if self.n_read == 2:
                raise KeyboardInterrupt
            return super().get_filtered_llm_batch(raise_on_epoch_end)

    with pytest.raises(KeyboardInterrupt):
        collect_activations(Interrupted(5), tmp_path / "a.safetensors", 50, "retain", "one")
    assert [path.name for path in tmp_path.iterdir()] == [".a.safetensors.lock"]


def test_a_corpus_smaller_than_a_batch_of_the_model_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"The forget corpus is smaller than one batch of the model \(2 x 8 tokens\)"):
        collect_activations(Store(0), tmp_path / "a.safetensors", 50, "forget", "one")


def test_what_several_processes_need_is_collected_once(tmp_path):
    path = tmp_path / "a.safetensors"
    collected = []

    class Counted(Store):
        def get_filtered_llm_batch(self, raise_on_epoch_end):
            collected.append(threading.get_ident())
            time.sleep(0.01)
            return super().get_filtered_llm_batch(raise_on_epoch_end)

    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: collect_activations(Counted(5), path, 50, "retain", "one"), range(8)))
    assert paths == [path] * 8
    assert len(set(collected)) == 1
