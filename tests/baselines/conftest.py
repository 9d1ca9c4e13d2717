"""The real MovieLens-100K, read once for all tests that can have it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from baselines.data import ml100k
from baselines.data.download import FetchError
from baselines.errors import LeanRecError


@pytest.fixture(scope="session")
def ml100k_ratings() -> pd.DataFrame:
    """`ml100k.ratings()` from a local folder or the cache; tests do not use the network."""

    def refuse(path: Path) -> None:
        raise FetchError("tests do not use the network")

    offline = tuple(dataclasses.replace(source, fetch=refuse) for source in ml100k.SOURCES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ml100k, "SOURCES", offline)
        try:
            return ml100k.ratings()
        except LeanRecError as error:
            pytest.skip(f"needs MovieLens-100K: {error}")
