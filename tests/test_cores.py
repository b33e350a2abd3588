"""Default numbers of worker processes and threads."""

from __future__ import annotations

import pytest

from dnl_video import cores


@pytest.mark.parametrize(
    ("available", "workers", "processes", "threads"),
    [(2, 2, 1, 1), (16, 8, 1, 8), (8, 8, 1, 4), (16, 2, 4, 2), (4, 0, 1, 4)],
)
def test_threads_leave_cores_for_the_loaders(
    available: int, workers: int, processes: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(cores, "available_cores", lambda: available)
    assert cores.network_threads(workers, processes) == threads


def test_omp_num_threads_has_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3,1")
    assert cores.network_threads(workers=8) == 3


def test_default_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "available_cores", lambda: 64)
    assert cores.default_workers(None) == 8
    assert cores.default_workers(0) == 0
    monkeypatch.setattr(cores, "available_cores", lambda: 2)
    assert cores.default_workers(None) == 2
