"""The run that most tests of reports share."""

from __future__ import annotations

from typing import Any

import pytest

from dnl_video.report import build_report
from dnl_video.results.predictions import Predictions
from dnl_video.results.reader import read_predictions
from tests.report.directories import make_meta, make_videos, write


@pytest.fixture(scope="session")
def predictions(tmp_path_factory: pytest.TempPathFactory) -> Predictions:
    """160 listed videos, of which three failed; read only."""
    directory = write(tmp_path_factory.mktemp("run"), make_videos(160, failed={7, 60, 113}), make_meta(160))
    return read_predictions(directory)


@pytest.fixture(scope="session")
def report(predictions: Predictions) -> dict[str, Any]:
    """The report of these predictions; read only."""
    return build_report(predictions)
