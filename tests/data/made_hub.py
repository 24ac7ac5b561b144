"""A hub of the tests' own."""

from datasets import IterableDataset


class FakeHub:
    """Stands in for the hub: datasets by name, as rows or as the error that opening them raises."""

    def __init__(self, datasets):
        self.datasets, self.asked = datasets, []

    def load_dataset(self, name, config, *, split, streaming):
        self.asked.append((name, config, split, streaming))
        rows = self.datasets[name]
        if isinstance(rows, Exception):
            raise rows
        return IterableDataset.from_generator(lambda: iter(rows))
