"""Stop on SIGTERM, SIGUSR1 or Ctrl-C: finish the step, save the state, and end all processes together.

Lightning's handlers do not fit. Its SIGTERM handler communicates with other processes inside the handler, at any point
of their work. Its SLURM handler saves in the middle of a step.
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
from dnl_video.launcher import wait_or_kill
from dnl_video.training.collectives import all_reduce_mean

# SLURM users choose SIGUSR1 as the signal before the end of a job. Windows has no SIGUSR1.
_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)]
# torchrun and terminals send the same Ctrl-C twice; a later Ctrl-C is a second request.
_SAME_REQUEST_S = 1.0
_CHILDREN_EXIT_S = 30.0
# After one process fails, the others wait in collectives; on a GPU they would stay there as orphans.
FAILED_CHILDREN_EXIT_S = 10.0


class StopRequest(Callback):
    """Context and callback that handles SIGTERM, SIGUSR1 and Ctrl-C.

    A signal ends the block immediately with `Terminated`, or with KeyboardInterrupt for Ctrl-C. While `deferred` is
    set (during training steps), the signal is only recorded; `any_process` reports it between steps. A Ctrl-C after a
    recorded signal ends the block too. Other repeated signals have no effect.

    As a callback it must come before those that take long at the start of validation.
    """

    def __init__(self) -> None:
        self.deferred = False
        """Whether a signal waits for the end of the step."""
        self.received: signal.Signals | None = None
        self._received_at = 0.0
        self._process = os.getpid()
        self._launcher: Any = None
        self._children: list[subprocess.Popen[Any]] = []
        self._old_handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        self._old_handlers = {signum: signal.getsignal(signum) for signum in _SIGNALS}
        self.install_handlers()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if _in_main_thread():
            for signum, handler in self._old_handlers.items():
                signal.signal(signum, handler)
        if error is not None:
            self._children += take_children(self._launcher)
        wait_or_kill(self._children, _CHILDREN_EXIT_S)
        if isinstance(error, Terminated) and error.signum == signal.SIGINT:
            raise KeyboardInterrupt(error.saved) from None

    def install_handlers(self) -> None:
        """Install the signal handlers, also over handlers that Lightning installed since."""
        if _in_main_thread():
            for signum in _SIGNALS:
                signal.signal(signum, self._handle)

    def forward_to_children(self, trainer: Trainer) -> None:
        """Forward signals to the processes that Lightning's launcher starts."""
        self._launcher = trainer.strategy.launcher

    def any_process(self, trainer: Trainer) -> bool:
        """Return whether any process received a signal; all processes call this together."""
        received = torch.tensor(float(self.received is not None), device=trainer.strategy.root_device)
        return bool(all_reduce_mean(received) > 0)

    def stop(self, saved: str = "") -> NoReturn:
        """Raise `Terminated`; ``saved`` says in the message which checkpoint was written."""
        self._children += take_children(self._launcher)
        # Without a signal of its own, this process stops because of another one.
        raise Terminated(self.received or signal.SIGTERM, saved)

    def stop_if_received(self) -> None:
        """Raise `Terminated` if this process received a signal."""
        if self.received is not None:
            self.stop()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace Lightning's signal handlers; defer signals during training steps."""
        self.install_handlers()
        self.deferred = True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop immediately during validation; `LastCheckpoint` saved before it."""
        self.deferred = False
        self.stop_if_received()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Stop if the handler's exception was lost: Python ignores exceptions in destructors."""
        self.stop_if_received()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Defer signals again."""
        self.deferred = True

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a data loader process; it ends with its parent
        again = self.received is not None
        if again and time.monotonic() - self._received_at < _SAME_REQUEST_S:
            return
        if not again:
            self.received, self._received_at = signal.Signals(signum), time.monotonic()
            for child in getattr(self._launcher, "procs", []):
                # Not SIGINT: a terminal sends Ctrl-C to the children too, and a second one would stop them immediately.
                child.send_signal(signal.SIGTERM)
        if not self.deferred:
            self.stop()
        if again and signum == signal.SIGINT:
            raise KeyboardInterrupt


def take_children(launcher: Any) -> list[subprocess.Popen[Any]]:
    """Take over the processes that Lightning's launcher started.

    Lightning's observer would kill this process and all others when one exits with a status other than 0.
    """
    started = getattr(launcher, "procs", [])
    children = list(started)
    started.clear()
    return children


def _in_main_thread() -> bool:
    # Python installs signal handlers in the main thread only.
    return threading.current_thread() is threading.main_thread()
