"""Stopping when the system asks: the step is finished, its state saved, and all processes leave together.

Lightning's own handling does not fit: its SIGTERM handler talks to other processes from within the handler, whatever
they are doing, and its SLURM handler saves in the middle of a step.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from types import FrameType
from typing import Any, NoReturn

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from dnl_video.errors import Terminated
from dnl_video.training.collectives import mean_over_processes, take_children, wait_for_children

# SIGUSR1 is what SLURM users ask for ahead of a job's end; Windows has none.
_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)]
# torchrun and terminals send the same Ctrl-C twice; a later one is meant.
_SAME_REQUEST_S = 1.0
_CHILDREN_LEAVE_S = 30.0


class StopRequest:
    """What SIGTERM, SIGUSR1 and Ctrl-C ask of this process, while it is the context.

    A request ends the block at once, by `Terminated`, or KeyboardInterrupt where it was Ctrl-C; while `waits` is set it
    is only noted, for `agreed` to be asked between steps. Ctrl-C after a request that is noted ends the block, too;
    other repetitions change nothing.
    """

    def __init__(self) -> None:
        self.waits = False
        """Whether a request waits for the step to end."""
        self.received: signal.Signals | None = None
        self._since = 0.0
        self._process = os.getpid()
        self._launcher: Any = None
        self._children: list[subprocess.Popen[Any]] = []
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        self._before = {signum: signal.getsignal(signum) for signum in _SIGNALS}
        self.listen()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if _in_main_thread():
            for signum, handler in self._before.items():
                signal.signal(signum, handler)
        if error is not None:
            self._children += take_children(self._launcher)
        wait_for_children(self._children, _CHILDREN_LEAVE_S)
        if isinstance(error, Terminated) and error.signum == signal.SIGINT:
            raise KeyboardInterrupt(error.saved) from None

    def listen(self) -> None:
        """Take the signals, from whoever took them since."""
        if _in_main_thread():
            for signum in _SIGNALS:
                signal.signal(signum, self._take)

    def attach(self, trainer: Trainer) -> None:
        """Pass requests on to the processes that Lightning's own launcher starts."""
        self._launcher = trainer.strategy.launcher

    def agreed(self, trainer: Trainer) -> bool:
        """Tell whether any process was asked to stop; all call it together."""
        asked = torch.tensor(float(self.received is not None), device=trainer.strategy.root_device)
        return bool(mean_over_processes(asked) > 0)

    def end(self, saved: str = "") -> NoReturn:
        """Stop now.

        Args:
            saved: What was saved before, in words.

        Raises:
            Terminated: Always.
        """
        self._children += take_children(self._launcher)
        # Another process may have been asked, not this one.
        raise Terminated(self.received or signal.SIGTERM, saved)

    def _take(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a loader's process, which ends with its parent
        again = self.received is not None
        if again and time.monotonic() - self._since < _SAME_REQUEST_S:
            return
        if not again:
            self.received, self._since = signal.Signals(signum), time.monotonic()
            for child in getattr(self._launcher, "procs", []):
                # Not Ctrl-C, which a terminal sends them too: twice it would mean at once.
                child.send_signal(signal.SIGTERM)
        if not self.waits:
            self.end()
        if again and signum == signal.SIGINT:
            raise KeyboardInterrupt


class StopAtOnce(Callback):
    """Lets requests wait while steps run, and not during validation, before which `LastCheckpoint` saves.

    Belongs before the callbacks that take long when validation starts.

    Args:
        request: The run's.
    """

    def __init__(self, request: StopRequest) -> None:
        self.request = request

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals that Lightning took."""
        self.request.listen()
        self.request.waits = True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait no more."""
        self.request.waits = False
        self._end_if_asked()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Stop, if the exception was lost: Python swallows those in an object's destruction."""
        self._end_if_asked()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait again."""
        self.request.waits = True

    def _end_if_asked(self) -> None:
        if self.request.received is not None:
            self.request.end()


def _in_main_thread() -> bool:
    # Python lets no other thread take signals.
    return threading.current_thread() is threading.main_thread()
