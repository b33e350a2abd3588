"""What `dnl-video prepare` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dnl_video.errors import InputError


@dataclass(frozen=True)
class PrepareOptions:
    """What to prepare, and how.

    Args:
        videos: Folder of the videos.
        out: Manifest to write, .csv.
        annotations: The listing; None where `videos` holds class folders.
        classes: Class list that labels must be in; None takes them as they are.
        workers: Processes; None takes the cores available, 8 at most.
        sample_frames: Frames decoded of each file.
        timeout_s: Seconds a file may take before it counts as broken.
        frames_fps: Frames a second of folders of frames.
        resize: Transcode to this short side; None leaves the files alone.
        resized_dir: Folder of transcoded files.
        crf: Constant rate factor of transcoded files.
        keep_small: Leave files alone whose short side is `resize` or less.
        keep_failed: List missing and broken videos in the manifest, too.
        relative: Write paths relative to the folder of the (transcoded) videos instead of absolute ones.
        retry_broken: Look again at files that were broken in an earlier run.
    """

    videos: str
    out: str
    annotations: str | None = None
    classes: str | None = None
    workers: int | None = None
    sample_frames: int = 8
    timeout_s: float = 120.0
    frames_fps: float = 30.0
    resize: int | None = None
    resized_dir: str | None = None
    crf: int = 20
    keep_small: bool = False
    keep_failed: bool = False
    relative: bool = False
    retry_broken: bool = False

    def __post_init__(self) -> None:
        least = {"workers": 1, "sample_frames": 1, "resize": 16, "crf": 0}
        for name, value in least.items():
            given = getattr(self, name)
            if given is not None and given < value:
                raise InputError(f"--{name.replace('_', '-')} is {given}; give at least {value}")
        for name, unit in (("timeout_s", "--timeout"), ("frames_fps", "--frames-fps")):
            if not getattr(self, name) > 0:
                raise InputError(f"{unit} is {getattr(self, name):g}; give a number above 0")
        if Path(self.out).suffix.lower() != ".csv":
            raise InputError(f"--out is {self.out}; give a name that ends with .csv")
        if (self.resize is None) != (self.resized_dir is None):
            raise InputError("--resize and --resized-dir go together; give both, or neither")
        if self.resized_dir is not None:
            videos, resized = Path(self.videos).expanduser().resolve(), Path(self.resized_dir).expanduser().resolve()
            if resized.is_relative_to(videos):
                raise InputError(f"--resized-dir {self.resized_dir} lies in --videos {self.videos}; choose one outside")
