"""A folder of small files that pass for the originals of Fashion-MNIST."""

from pathlib import Path

import pytest

from tests.images.original_files import arrays, idx, packed, publish


@pytest.fixture
def originals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "originals"
    folder.mkdir()
    for name, array in arrays().items():
        (folder / name).write_bytes(packed(idx(array)))
    publish(monkeypatch, folder)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return folder
