"""Options of `dnl-video prepare`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dnl_video.errors import InputError


@dataclass(frozen=True)
class PrepareOptions:
    """Options of `dnl-video prepare`.

    Args:
        videos: Folder that contains the videos.
        output: Manifest to write; its name ends with .csv.
        annotations: List of the videos. null: `videos` contains one folder per class.
        classes: Check labels against these class names: a file with one name per line, or kinetics400, kinetics600 or
            kinetics700.
        num_workers: Checking processes. null: one per available core, at most 8.
        sample_frames: Frames to decode from each file, including the first and the last.
        timeout_s: Seconds after which a file counts as broken.
        frames_fps: Frame rate of frame folders.
        resize: Transcode to H.264 with this short side (for example 320 or 256). Smaller videos keep their size. All
            frames are kept, with a key frame at least every 16 frames; sound is dropped.
        resized_dir: Folder for the transcoded files. The manifest then lists these.
        crf: Constant rate factor of the transcoded files; lower is better and larger.
        keep_small: Do not transcode files whose short side is at most `resize`.
        keep_failed: Also list missing and broken videos in the manifest. Use it for validation, so that evaluate counts
            them.
        relative: Write paths relative to the folder of the (transcoded) videos. Set that folder as root later.
        retry_broken: Check files again that were broken in an earlier run.
    """

    videos: str
    output: str
    annotations: str | None = None
    classes: str | None = None
    num_workers: int | None = None
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
        least = {"num_workers": 1, "sample_frames": 1, "resize": 16, "crf": 0}
        for name, value in least.items():
            given = getattr(self, name)
            if given is not None and given < value:
                raise InputError(f"--{name.replace('_', '-')} is {given}; give at least {value}")
        for name, unit in (("timeout_s", "--timeout-s"), ("frames_fps", "--frames-fps")):
            if not getattr(self, name) > 0:
                raise InputError(f"{unit} is {getattr(self, name):g}; give a number above 0")
        if Path(self.output).suffix.lower() != ".csv":
            raise InputError(f"--output is {self.output}; give a name that ends with .csv")
        if (self.resize is None) != (self.resized_dir is None):
            raise InputError("--resize and --resized-dir go together; give both, or neither")
        if self.resized_dir is not None:
            videos, resized = Path(self.videos).expanduser().resolve(), Path(self.resized_dir).expanduser().resolve()
            if resized.is_relative_to(videos):
                raise InputError(f"--resized-dir {self.resized_dir} lies in --videos {self.videos}; choose one outside")
