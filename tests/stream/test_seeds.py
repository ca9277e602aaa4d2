import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coupled.stream.seeds import permutation, philox, random_uint32, set_determinism, torch_rng


def test_the_first_numbers_of_a_stream_are_fixed():
    """Otherwise a new version of NumPy or of this package would silently change the runs of a seed."""
    assert philox(0, "order", 1).random_raw(2).tolist() == [2231296234669605164, 14182480689222864067]
    assert random_uint32(2**63 - 1, "views", 3, 1, shape=(3,)).tolist() == [1106361137, 3916668758, 900090703]


def test_streams_differ_in_seed_name_and_every_counter():
    """Otherwise two uses of the seed would draw the same numbers, as `seed + epoch` does for (0, 1) and (1, 0)."""
    keys = [
        *((0, "a", 0, 1), (0, "a", 1, 0), (1, "a", 0, 0), (0, "b", 0, 0), (0, "a"), (0, "a", 0), (0, "a", 0, 0)),
        *((0, "a", 11), (0, "a", 1, 1), (0, "a1", 1), (-1, "a"), (2**64, "a")),
    ]
    assert len({philox(*key).random_raw(1)[0] for key in keys}) == len(keys)


def test_numpy_integers_name_the_same_stream_as_python_integers():
    """Otherwise an epoch that came out of an array would change the run."""
    assert philox(np.int64(3), "a", np.uint8(4)).random_raw(1) == philox(3, "a", 4).random_raw(1)


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_a_longer_draw_begins_with_a_shorter_one(count):
    """Otherwise the numbers of an image would depend on how many images there are."""
    longer = random_uint32(5, "a", shape=(100, 2)).ravel()
    assert random_uint32(5, "a", shape=(count,)).tolist() == longer[:count].tolist()


def test_random_integers_fill_their_32_bits_evenly():
    """Otherwise probabilities and ranges made from them would be off."""
    bits = np.unpackbits(random_uint32(0, "bits", shape=(4000,)).view(np.uint8)).reshape(4000, 32)
    assert abs(bits.mean(axis=0) - 0.5).max() < 5 * 0.5 / np.sqrt(4000)


@given(n=st.integers(0, 200), seed=st.integers(0, 2**63))
def test_a_permutation_holds_every_number_once(n, seed):
    """Otherwise an epoch would skip or repeat images."""
    assert sorted(permutation(n, philox(seed, "p")).tolist()) == list(range(n))


def test_torch_rng_neither_reads_nor_changes_the_global_generator():
    """Otherwise building a network would depend on, or change, what else draws random numbers."""
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with torch_rng(0, "init"):
        first = torch.randn(5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    with torch_rng(0, "init"):
        again = torch.randn(5)
    with torch_rng(0, "init", 1):
        other = torch.randn(5)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_torch_rng_restores_the_global_generator_after_an_error():
    """Otherwise a failed build would leave every later random number dependent on our seed."""
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), torch_rng(0, "init"):
        raise ZeroDivisionError
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture
def torch_switches(monkeypatch):
    """Puts torch's switches back after the test."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "set, so that it is put back")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    monkeypatch.setenv("NCCL_ALGO", "set, so that it is put back")
    monkeypatch.delenv("NCCL_ALGO")
    cudnn, threads = torch.backends.cudnn, torch.get_num_threads()
    before = (torch.are_deterministic_algorithms_enabled(), cudnn.benchmark, cudnn.allow_tf32)
    filled = torch.utils.deterministic.fill_uninitialized_memory
    precision = torch.get_float32_matmul_precision()
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.utils.deterministic.fill_uninitialized_memory = filled
    cudnn.benchmark, cudnn.allow_tf32 = before[1:]
    torch.set_float32_matmul_precision(precision)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.usefixtures("torch_switches")
def test_set_determinism_disables_autotuning_and_tf32(deterministic):
    """Otherwise two equal runs could differ, or use a precision that the settings do not name."""
    torch.backends.cudnn.benchmark = torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("medium")
    torch.utils.deterministic.fill_uninitialized_memory = True
    set_determinism(deterministic, num_threads=1)
    assert torch.utils.deterministic.fill_uninitialized_memory is not deterministic  # memory is filled for nothing
    assert torch.are_deterministic_algorithms_enabled() is deterministic
    assert not torch.backends.cudnn.benchmark
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.get_num_threads() == 1
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == (":4096:8" if deterministic else None)
    assert os.environ.get("NCCL_ALGO") == ("Ring" if deterministic else None)


@pytest.mark.usefixtures("torch_switches")
def test_tensor_float_32_is_on_if_asked_for():
    """It is a choice of precision, made in the settings for all arms alike."""
    set_determinism(True, num_threads=None, tf32=True)
    assert torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "high"


@pytest.mark.usefixtures("torch_switches")
def test_set_determinism_without_threads_leaves_their_number():
    """Otherwise a run that sets nothing would lose its cores."""
    threads = torch.get_num_threads()
    set_determinism(True, num_threads=None)
    assert torch.get_num_threads() == threads
