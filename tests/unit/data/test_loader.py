"""Samplers: who gets which rows in which order; and the loader's resume."""

import itertools

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from lightning_rnn.data import loader as loading
from lightning_rnn.data.loader import EvalSampler, SequenceLoader, TrainSampler, seeded_generator
from lightning_rnn.data.sequences import Sequences
from lightning_rnn.errors import DataError

ROWS, SIZES, WORLDS = st.integers(1, 60), st.integers(1, 8), st.integers(1, 5)


def train_ranks(rows, batch_size, world, seed=0, epoch=0, lengths=None):
    """Batches of each rank, as lists of rows; in buckets where there are lengths."""
    ranks, buckets = [], lengths is not None
    lengths = torch.ones(rows) if lengths is None else lengths
    for rank in range(world):
        sampler = TrainSampler(
            lengths, batch_size=batch_size, seed=seed, rank=rank, world_size=world, buckets=buckets
        )
        sampler.set_epoch(epoch)
        ranks.append([batch.tolist() for batch in sampler.batches(0)])
        assert len(ranks[-1]) == len(sampler)
    return ranks


def some_lengths(rows, seed=0):
    return torch.randint(1, 30, (rows,), generator=seeded_generator(seed, rows))


@given(rows=ROWS, batch_size=SIZES, world=WORLDS, epoch=st.integers(0, 5), buckets=st.booleans())
@settings(max_examples=200)
def test_training_covers_the_rows_in_equal_parts(rows, batch_size, world, epoch, buckets):
    ranks = train_ranks(
        rows, batch_size, world, epoch=epoch, lengths=some_lengths(rows) if buckets else None
    )
    sizes = [[len(batch) for batch in batches] for batches in ranks]
    assert all(found == sizes[0] for found in sizes)  # ranks step together
    assert all(size == batch_size for size in sizes[0][:-1])
    assert 1 <= sizes[0][-1] <= batch_size
    drawn = [row for batches in ranks for batch in batches for row in batch]
    assert set(drawn) <= set(range(rows))
    if rows < world:
        assert len(drawn) == world
        assert set(drawn) == set(range(rows))
    else:
        assert len(drawn) == len(set(drawn)) == rows - rows % world


@given(rows=ROWS, batch_size=SIZES, world=WORLDS)
@settings(max_examples=50)
def test_ranks_share_the_batches_that_one_process_would_have(rows, batch_size, world):
    assume(rows >= world)
    ranks = train_ranks(rows, batch_size, world)
    (alone,) = train_ranks(rows, batch_size * world, 1)
    for whole, *shares in zip(alone, *ranks, strict=False):
        together = len(whole) // world * world
        assert shares == [whole[rank:together:world] for rank in range(world)]


@given(rows=ROWS, batch_size=SIZES, world=WORLDS, seed=st.integers(0, 9))
@example(rows=2, batch_size=1, world=3, seed=0)  # fewer sequences than ranks
@settings(max_examples=50)
def test_buckets_change_company_not_attendance(rows, batch_size, world, seed):
    """As in the plain order: the sequences of a pool, the last smaller batch, what is left over."""
    lengths = some_lengths(rows, seed)
    plain, size = train_ranks(rows, batch_size, world, seed), batch_size * world
    ours = train_ranks(rows, batch_size, world, seed, lengths=lengths)
    assert ours == train_ranks(
        rows, batch_size, world, seed, lengths=lengths
    )  # a function of (seed, epoch)

    def steps(ranks):
        return [list(itertools.chain(*shares)) for shares in zip(*ranks, strict=True)]

    whole = rows // size
    assert steps(ours)[whole:] == steps(plain)[whole:]
    batches, together = (
        [set(batch) for batch in steps(ours)[:whole]],
        max(1, min(loading.MAX_POOL_BATCHES, whole // loading.MIN_POOLS)),
    )
    for start in range(0, whole, together):
        pool = set(itertools.chain(*steps(plain)[start : min(start + together, whole)]))
        of_pool = [batch for batch in batches if batch <= pool]
        assert set.union(*of_pool) == pool
        assert sum(map(len, of_pool)) == len(pool)
        spans = sorted(
            (min(of), max(of)) for of in (lengths[list(batch)].tolist() for batch in of_pool)
        )
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def test_buckets_pad_less_and_mix_batches():
    lengths = torch.randint(5, 100, (20_000,), generator=seeded_generator(0))
    plain, ours = (
        TrainSampler(lengths, batch_size=32, seed=0, buckets=buckets) for buckets in (False, True)
    )
    batches = [lengths[rows] for rows in ours.batches(0)]
    padded, real = sum(int(batch.max()) * len(batch) for batch in batches), int(lengths.sum())
    assert ours.padding() == pytest.approx(1 - real / padded)
    assert ours.padding() < 0.03
    assert plain.padding() > 0.4
    means = torch.tensor([batch.float().mean() for batch in batches])
    order = torch.stack([torch.arange(len(means)).float(), means])
    assert abs(float(torch.corrcoef(order)[0, 1])) < 0.1  # short and long ones come in no order
    ours.set_epoch(1)
    assert {tuple(rows.tolist()) for rows in ours.batches(0)}.isdisjoint(
        tuple(rows.tolist()) for rows in plain.batches(0)
    )


def test_equal_lengths_are_not_put_in_buckets():
    assert train_ranks(50, 4, 2, lengths=torch.full((50,), 7)) == train_ranks(50, 4, 2)


@given(rows=st.integers(1, 30), batch_size=SIZES, skip=st.integers(0, 10))
@settings(max_examples=50)
def test_skipping_leaves_the_rest_as_it_was(rows, batch_size, skip):
    for sampler in (
        TrainSampler(torch.ones(rows), batch_size=batch_size, seed=1),
        TrainSampler(some_lengths(rows), batch_size=batch_size, seed=1, buckets=True),
        EvalSampler(torch.ones(rows, dtype=torch.int64), batch_size=batch_size),
    ):
        whole = [batch.tolist() for batch in sampler.batches(0)]
        assert [batch.tolist() for batch in sampler.batches(skip)] == whole[skip:]


def test_training_order_is_a_function_of_seed_and_epoch():
    orders = {
        (seed, epoch): train_ranks(50, 50, 1, seed, epoch)[0][0]
        for seed in (0, 1)
        for epoch in (0, 1, 2)
    }
    assert len({tuple(order) for order in orders.values()}) == 6
    assert all(sorted(order) == list(range(50)) for order in orders.values())
    torch.manual_seed(99)  # the global generator has no say
    assert all(train_ranks(50, 50, 1, *key)[0][0] == order for key, order in orders.items())


def test_seeded_generators_are_functions_of_the_whole_key():
    keys = [
        (0,),
        (1,),
        (0, 0),
        (0, 1),
        (1, 0),
        (0, 0, 0),
        (0, 1, 0),
        (0, 1, 1),
        (0, 0, 1),
        (2**40, 3),
    ]
    draws = {key: tuple(torch.rand(4, generator=seeded_generator(*key)).tolist()) for key in keys}
    assert len(set(draws.values())) == len(keys)
    assert all(
        tuple(torch.rand(4, generator=seeded_generator(*key)).tolist()) == draw
        for key, draw in draws.items()
    )


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=40), batch_size=SIZES, world=WORLDS)
@settings(max_examples=100)
def test_evaluation_sees_every_row_once(lengths, batch_size, world):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "MAX_EVAL_STEPS", 36)
        lengths = torch.tensor(lengths)
        samplers = [
            EvalSampler(lengths, batch_size=batch_size, rank=r, world_size=world)
            for r in range(world)
        ]
    ranks = [[batch.tolist() for batch in sampler.batches(0)] for sampler in samplers]
    assert [len(batches) for batches in ranks] == [len(sampler) for sampler in samplers]
    flat = [[row for batch in batches for row in batch] for batches in ranks]
    assert all(rows == [-1] or -1 not in rows for rows in flat)
    assert sorted(row for rows in flat for row in rows if row >= 0) == list(range(len(lengths)))
    limit = max(batch_size, 36 // int(lengths.max()))
    assert max(len(batch) for batches in ranks for batch in batches) <= limit
    assert max(map(len, ranks)) - min(map(len, ranks)) <= 1


def test_evaluation_puts_like_lengths_together():
    lengths = torch.tensor([5, 1, 4, 2, 3, 6])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "MAX_EVAL_STEPS", 1)
        sampler = EvalSampler(lengths, batch_size=2)
    assert [batch.tolist() for batch in sampler.batches(0)] == [[1, 3], [4, 2], [0, 5]]


def test_evaluation_batches_are_large_but_bounded():
    sizes = [
        len(EvalSampler(torch.full((3000,), t), batch_size=1).chunks[0])
        for t in (1, 1 << 10, 1 << 20)
    ]
    assert sizes == [1024, 256, 1]
    assert len(EvalSampler(torch.ones(3000, dtype=torch.int64), batch_size=2000).chunks[0]) == 2000


def numbered(n, epoch=0):
    """One sequence a row, its value 1000 * epoch + row."""
    return Sequences(
        torch.arange(n).view(-1, 1) + 1000 * epoch,
        torch.ones(n, dtype=torch.int64),
        torch.arange(n) % 2,
    )


def loader(n=10, batch_size=3):
    sampler = TrainSampler(torch.ones(n), batch_size=batch_size, seed=5)
    return SequenceLoader(numbered(n), sampler, lambda epoch: numbered(n, epoch))


def content(batches):
    return [(b.x.tolist(), b.lengths.tolist(), b.y.tolist(), b.index.tolist()) for b in batches]


def test_loader_yields_the_samplers_rows_of_the_epochs_data():
    train = loader()
    for epoch in (0, 3):
        train.batch_sampler.set_epoch(epoch)
        rows = list(train.batch_sampler.batches(0))
        batches = list(train)
        assert len(batches) == len(train) == 4
        assert [b.index.tolist() for b in batches] == [r.tolist() for r in rows]
        assert [b.x.flatten().tolist() for b in batches] == [
            (r + 1000 * epoch).tolist() for r in rows
        ]


@pytest.mark.parametrize("done", [0, 1, 3])
@pytest.mark.parametrize("epoch", [0, 2])
def test_a_resumed_loader_yields_the_remaining_batches(done, epoch):
    first, second = loader(), loader()
    first.batch_sampler.set_epoch(epoch)
    whole = content(first)
    iterator = iter(first)
    for _ in range(done):
        next(iterator)
    state = first.state_dict()
    if done:
        assert (state["position"], state["batches"]) == (done, 4)
    else:
        state["position"] = 0
    second.load_state_dict(state)
    second.batch_sampler.set_epoch(epoch)
    assert content(second) == whole[done:]
    assert second.state_dict()["position"] == 4
    second.batch_sampler.set_epoch(epoch + 1)
    first.batch_sampler.set_epoch(epoch + 1)
    assert content(second) == content(first)  # whole again
    assert len(content(second)) == 4


def test_a_loader_resumed_at_an_epochs_end_yields_the_next_epoch():
    first, second = loader(), loader()
    assert len(list(first)) == 4
    second.load_state_dict(first.state_dict())
    first.batch_sampler.set_epoch(1)
    second.batch_sampler.set_epoch(1)
    assert content(second) == content(first)
    assert second.position == 4


def test_a_resumed_loader_keeps_its_position_until_it_goes_on():
    """A run of several processes may be told to stop, and save, before its first step."""
    first, second = loader(), loader()
    iterator = iter(first)
    next(iterator), next(iterator)
    second.load_state_dict(first.state_dict())
    assert second.state_dict() == first.state_dict()
    assert first.state_dict()["position"] == 2


def test_the_orders_hash_tells_whether_two_runs_saw_the_same_rows():
    first, second, third = loader(), loader(), loader(batch_size=4)
    list(first)
    iterator = iter(second)
    next(iterator)
    half = second.state_dict()
    assert len({first.order, half["order"], ""}) == 3
    resumed = loader()
    resumed.load_state_dict(half)
    list(resumed)
    assert resumed.order == first.order
    list(third)
    assert third.order != first.order
    list(first)  # an epoch more
    assert first.order != resumed.order


def test_a_position_in_an_epoch_of_other_batches_is_refused():
    first = loader(n=10, batch_size=3)
    next(iter(first))
    with pytest.raises(DataError) as caught:
        loader(n=10, batch_size=5).load_state_dict(first.state_dict())
    assert str(caught.value) == (
        "batch size and number of processes: expected those of the checkpoint, which was saved "
        "within an epoch of 4 batches per rank, got 2 batches"
    )
    first = loader(n=10, batch_size=3)
    list(first)
    other = loader(n=10, batch_size=5)
    other.load_state_dict(first.state_dict())  # between two epochs any batch size will do
    assert len(list(other)) == 2


def test_a_filler_row_is_marked_by_its_index():
    sampler = EvalSampler(torch.ones(2, dtype=torch.int64), batch_size=1, rank=2, world_size=3)
    (batch,) = SequenceLoader(numbered(2), sampler)
    assert batch.index.tolist() == [-1]
    assert batch.x.shape == (1, 1, 1)
    assert batch.y.shape == (1,)
