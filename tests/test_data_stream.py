"""Streams: every picture once an epoch, the same on every run, resumed exactly, shared without overlap."""

from __future__ import annotations

import itertools
import threading
import time

import pytest
import torch

from tests.stream_source import NumberedFaces, assert_same, numbers
from twodasl_lite.base.errors import InputTypeError, ShapeError, TwodaslError, ValueRangeError
from twodasl_lite.datasets.stream import MemoryStream, Order, SetStream, SyntheticStream, drawn_beside, prefetch
from twodasl_lite.faces import load_face_model
from twodasl_lite.geometry.coefficients import CoefficientLayout
from twodasl_lite.geometry.face_batch import FaceBatch
from twodasl_lite.worlds.synthetic import SyntheticFaces


def first(stream, count: int, batch_size: int = 4, start: int = 0) -> list[FaceBatch]:
    return list(itertools.islice(stream.batches(batch_size, start), count))


def of_numbers(count: int, **options) -> MemoryStream:
    return MemoryStream(NumberedFaces().batch(0, count), **options)


def make_streams(rank: int = 0, world_size: int = 1) -> list:
    share = {"rank": rank, "world_size": world_size}
    return [SyntheticStream(NumberedFaces(), first=100, **share), of_numbers(22, seed=3, **share)]


@pytest.mark.parametrize("kind", [0, 1])
def test_a_stream_goes_on_where_it_was(kind: int) -> None:
    whole = first(make_streams()[kind], 14)
    for start in (0, 1, 5, 6, 13):
        again = first(make_streams()[kind], 14 - start, start=start)
        for found, expected in zip(again, whole[start:], strict=True):
            assert_same(found, expected)


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_the_sequence(kind: int, world_size: int) -> None:
    alone = [numbers(batch) for batch in first(make_streams()[kind], 6 * world_size)]
    parts = [[numbers(b) for b in first(make_streams(rank, world_size)[kind], 6)] for rank in range(world_size)]
    assert [parts[n % world_size][n // world_size] for n in range(6 * world_size)] == alone
    assert numbers(first(make_streams(1, world_size)[kind], 1, start=4)[0]) == parts[1][4]


def test_synthetic_pictures_are_the_world_s_and_never_come_twice() -> None:
    seen = [n for batch in first(SyntheticStream(NumberedFaces(), first=7), 20) for n in numbers(batch)]
    assert seen == list(range(7, 87))
    assert first(SyntheticStream(NumberedFaces(), truth=False), 1)[0].coefficients is None


def test_every_epoch_holds_every_picture_once_in_another_order() -> None:
    seen = [n for batch in first(of_numbers(22), 33) for n in numbers(batch)]  # 132 = 6 epochs
    epochs = [seen[k : k + 22] for k in range(0, 132, 22)]
    assert all(sorted(epoch) == list(range(22)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6
    other = [n for batch in first(of_numbers(22, seed=1), 6) for n in numbers(batch)]
    assert seen[:22] != other[:22]
    plain = [n for batch in first(of_numbers(22, shuffle=False), 11) for n in numbers(batch)]
    assert plain == [*range(22), *range(22)]


def test_a_set_smaller_than_a_batch_is_repeated() -> None:
    assert sorted(numbers(first(of_numbers(3), 1, batch_size=6)[0])) == [0, 0, 1, 1, 2, 2]


def test_blocks_are_mixed_but_few_at_a_time() -> None:
    counts = [10] * 9 + [5]
    order = Order(counts, seed=2, mix=3)
    _, index = order.at(0, 2 * order.num)
    for epoch in index.split(order.num):
        assert sorted(epoch.tolist()) == list(range(95))
        groups = [set((part // 10).tolist()) for part in epoch.split([30, 30, 30, 5])] if epoch[-1] >= 90 else None
        if groups is not None:
            assert [len(group) for group in groups] == [3, 3, 3, 1]
    blocks = (index[:95] // 10).tolist()
    open_at_once = max(len(set(blocks[k : k + 20])) for k in range(75))
    assert open_at_once <= 6  # two groups of three
    assert len(set(blocks[:20])) > 1


def test_mirrored_pictures_are_drawn_anew_each_epoch_and_resumed() -> None:
    faces = NumberedFaces().batch(0, 40)._replace(coefficients=None)
    batches = first(MemoryStream(faces, flip=True, seed=5), 20)
    chosen = {}
    for position, batch in enumerate(batches):
        for row in range(4):
            number = abs(int(batch.yaw[row]))
            mirrored = bool(batch.images[row].equal(faces.images[number].flip(-1)))
            assert mirrored != bool(batch.images[row].equal(faces.images[number]))
            expected = faces.take([number])
            assert_same(batch.take([row]), expected.flip() if mirrored else expected)
            chosen[number, position // 10] = mirrored
    for epoch in (0, 1):
        assert 10 < sum(chosen[n, epoch] for n in range(40)) < 30
    assert [chosen[n, 0] for n in range(40)] != [chosen[n, 1] for n in range(40)]
    assert_same(first(MemoryStream(faces, flip=True, seed=5), 1, start=13)[0], batches[13])
    with pytest.raises(TwodaslError, match="flip: found pictures with coefficients"):
        first(of_numbers(8, flip=True), 1)


def test_a_set_is_drawn_in_pieces() -> None:
    told = []
    stream = MemoryStream.draw(NumberedFaces(), 300, first=5, progress=lambda *done: told.append(done), shuffle=False)
    assert told == [(256, 300), (300, 300)]
    assert_same(first(stream, 1, batch_size=300)[0], NumberedFaces().batch(5, 300))
    assert stream.faces.faces.images.dtype == torch.uint8


def test_batches_are_on_the_set_s_device(device: torch.device) -> None:
    stream = MemoryStream.draw(NumberedFaces(), 9, device=device)
    assert first(stream, 1)[0].images.device.type == device.type
    flat = MemoryStream(stream.faces.faces._replace(coefficients=None), flip=True)
    assert first(flat, 1)[0].images.device.type == device.type


def test_bad_arguments() -> None:
    with pytest.raises(ValueRangeError, match="rank: found 2; expected 0 to 1"):
        of_numbers(4, rank=2, world_size=2)
    with pytest.raises(ValueRangeError, match="world_size: found 0; expected 1 or more"):
        of_numbers(4, world_size=0)
    with pytest.raises(ValueRangeError, match="batch_size: found 0"):
        next(of_numbers(4).batches(0))
    with pytest.raises(InputTypeError, match=r"batch_size: found 2\.5; expected a whole number"):
        next(of_numbers(4).batches(2.5))
    with pytest.raises(ValueRangeError, match="start: found -1"):
        next(of_numbers(4).batches(2, start=-1))
    with pytest.raises(ShapeError, match="no picture"):
        MemoryStream(NumberedFaces().batch(0, 3).take([]))


# ------------------------------------------------------------------------------------------------- in the background
def test_prefetched_batches_are_the_same_and_end() -> None:
    stream = SetStream(of_numbers(22).faces)
    ahead = prefetch(itertools.islice(stream.batches(4), 9), depth=3)
    for found, expected in itertools.zip_longest(ahead, first(stream, 9)):
        assert_same(found, expected)


def test_prefetching_works_ahead_but_not_without_bound() -> None:
    drawn = []

    def batches():
        for n in itertools.count():
            drawn.append(n)
            yield NumberedFaces().batch(n, 1)

    ahead = prefetch(batches(), depth=2)
    assert numbers(next(ahead)) == [0]
    deadline = time.monotonic() + 5
    while len(drawn) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert drawn == [0, 1, 2, 3]  # one taken, two ready, one in hand
    ahead.close()
    assert not any(thread.name == "prefetch" for thread in threading.enumerate())


def test_what_goes_wrong_in_the_background_is_raised() -> None:
    stream = SyntheticStream(NumberedFaces(fail_at=9))
    ahead = prefetch(stream.batches(4))
    assert numbers(next(ahead)) == [0, 1, 2, 3]
    assert numbers(next(ahead)) == [4, 5, 6, 7]
    with pytest.raises(ArithmeticError, match="picture 9"):
        next(ahead)
    with pytest.raises(ValueRangeError, match="depth: found 0"):
        next(prefetch(stream.batches(4), depth=0))


def test_batches_drawn_beside_are_the_same_and_end() -> None:
    plain = first(SyntheticStream(NumberedFaces(), first=7), 6)
    beside = drawn_beside(itertools.islice(SyntheticStream(NumberedFaces(), first=7).batches(4), 6), "cpu")
    for found, expected in itertools.zip_longest(beside, plain):
        assert_same(found, expected)
    again = drawn_beside(SyntheticStream(NumberedFaces(), first=7).batches(4, start=3), "cpu")
    assert_same(next(again), plain[3])
    again.close()
    assert not any(thread.name == "prefetch" for thread in threading.enumerate())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_a_gpu_draws_beside_the_training() -> None:
    """Real pictures from a stream of their own, while the current one is kept busy, are those of the plain stream."""
    faces = SyntheticFaces(load_face_model(CoefficientLayout()), "wild", seed=4, device="cuda")
    plain = [batch.to("cpu") for batch in first(SyntheticStream(faces), 5, batch_size=24)]
    beside = drawn_beside(SyntheticStream(faces).batches(24), "cuda")
    busy, sums = torch.rand(2048, 2048, device="cuda"), []
    for batch, expected in zip(beside, plain, strict=False):
        for _ in range(8):
            busy = (busy @ busy).softmax(dim=0)
        sums.append(batch.images.float().sum())
        assert_same(batch.to("cpu"), expected)
    assert [float(value) for value in sums] == [float(batch.images.float().sum()) for batch in plain]
    again = next(drawn_beside(SyntheticStream(faces).batches(24, start=3), "cuda"))
    assert_same(again.to("cpu"), plain[3])
