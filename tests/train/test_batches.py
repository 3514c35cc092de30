"""Any batch by its number: every example once an epoch, whoever asks, in whatever order."""

from pathlib import Path

import pytest
import torch

from kiku.errors import TrainingError
from kiku.train.batches import Batches, collate
from kiku.train.shards import PackReader
from tests.train.packs import write_pack


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    return write_pack(tmp_path_factory.mktemp("pack"), tiny_folder, 10, 0)


def test_an_epoch_has_every_example_once(folder: Path) -> None:
    batches = Batches(PackReader(folder), 4, 0)
    assert batches.per_epoch == 3
    for epoch in range(3):
        numbers = [n for b in range(3) for n in batches.numbers(3 * epoch + b).tolist()]
        assert sorted(numbers) == list(range(10))
    assert batches.numbers(0).tolist() != batches.numbers(3).tolist()


def test_a_batch_depends_on_its_number_and_the_seed_alone(folder: Path) -> None:
    one, two = Batches(PackReader(folder), 4, 5), Batches(PackReader(folder), 4, 5)
    wanted = [one[b] for b in range(6)]
    for b in (5, 0, 3):
        assert two[b].numbers == wanted[b].numbers
        assert torch.equal(two[b].codes, wanted[b].codes)
    assert any(Batches(PackReader(folder), 4, 6)[b].numbers != wanted[b].numbers for b in range(6))


def test_side_by_side(folder: Path) -> None:
    reader = PackReader(folder)
    longest, shortest = int(reader.lengths.argmax()), int(reader.lengths.argmin())
    batch = collate(reader, [longest, shortest])
    length = int(reader.lengths[shortest])
    codes, text, pauses = reader.arrays(shortest)
    assert batch.codes.shape == (2, 4, int(reader.lengths[longest]))
    assert torch.equal(batch.codes[1, :, :length], torch.from_numpy(codes.astype("int64")))
    assert torch.equal(batch.text[1, :length], torch.from_numpy(text.astype("int64")))
    assert torch.equal(batch.pauses[1, :length], torch.from_numpy(pauses.astype("int64")))
    assert bool((batch.codes[1, :, length:] == -1).all())
    assert batch.num_frames == int(reader.lengths[longest]) + length


def test_a_split_that_is_not_there(folder: Path) -> None:
    with pytest.raises(TrainingError, match="no examples of the split 'dev'"):
        Batches(PackReader(folder, "dev"), 4, 0)
