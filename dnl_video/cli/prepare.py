"""`dnl-video prepare`: check the videos of a list and write a manifest of the readable ones."""

from __future__ import annotations

import argparse

from dnl_video.cli.options import add_config_options, config_from
from dnl_video.cli.terminal import log, say, suggest
from dnl_video.data.listings import LIST_FORMATS
from dnl_video.data.prepare_list import PrepareOptions

_FORMATS = "\n".join(f"  {form.name:<22}  {form.form}" for form in reversed(LIST_FORMATS))
DESCRIPTION = f"""Find and check the videos of a list; write the manifest to train or evaluate on.

examples:
  dnl-video prepare --annotations kinetics_train.csv --videos k400/train --classes kinetics400 --output train.csv
  dnl-video prepare --annotations kinetics_val.csv --videos k400/val --output val.csv --keep-failed
  dnl-video prepare --videos my_classes --output mine.csv --val-share 0.2      mine.train.csv and mine.val.csv
  dnl-video prepare --annotations kinetics_train.csv --videos k400/train --output train.csv \\
      --resize 320 --resized-dir k400_320/train
  dnl-video prepare --annotations kinetics_train.csv --videos youtube --output train.csv --cut --resized-dir clips

Lists; the content tells the format:
{_FORMATS}

Files of Kinetics are named ID_000010_000020.mp4 or ID.mp4 (the clip, or the whole video: see --cut),
anywhere below DIR. Without --annotations, DIR contains one folder per class. Folders of extracted frames
(img_00001.jpg, ...) also count as videos.

Each file is opened as in training and a sample of its frames is decoded, in separate processes: a file that
crashes or hangs the decoder is reported, and the others continue. A second run, also after an interruption,
checks only new and changed files (OUT.journal.jsonl stores the results of the others).

  OUT.csv            path,label,video_id,num_frames,fps,width,height,codec,duration_s,
                     decoder,variable_rate,status; with --val-share OUT.train.csv and OUT.val.csv
  OUT.broken.csv     missing, broken and duplicate videos, each with a reason
  OUT.summary.json   counts: listed, found, missing, broken by reason, per class
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    metavars = {"annotations": "LIST", "videos": "DIR", "output": "OUT.csv", "classes": "FILE", "resized_dir": "DIR"}
    metavars["group_by"] = "PATTERN"
    groups = {
        "list": ("annotations", "videos", "output", "classes", "keep_failed", "relative"),
        "training and validation": ("val_share", "group_by", "seed"),
        "checking": ("num_workers", "sample_frames", "timeout_s", "frames_fps", "retry_broken"),
        "transcoding": ("resize", "cut", "resized_dir", "crf", "keep_small"),
    }
    for title, names in groups.items():
        add_config_options(parser.add_argument_group(title), PrepareOptions, *names, metavars=metavars)
    parser._option_string_actions["--out"] = parser._option_string_actions["--output"]


def run(args: argparse.Namespace) -> int:
    """Prepare, print the summary and the next command.

    Raises:
        InputError: An argument, the list or the folder cannot be used.
    """
    from dnl_video.cli.screen import file_progress
    from dnl_video.data.prepare import prepare
    from dnl_video.data.prepare_summary import summary_text

    options = config_from(args, PrepareOptions)
    with file_progress() as show:
        prepared = prepare(options, show)
    for note in prepared.summary["notes"]:
        log.info(f"note: {note}")
    say(summary_text(prepared.summary))
    work = f"{prepared.checked:,} files checked"
    if options.resized_dir is not None:
        work += f", {prepared.transcoded:,} transcoded"
    say(f"{work}; the others were cached" if prepared.checked < prepared.summary["found"] else work)
    summary, divided = prepared.summary, prepared.val_manifest is not None
    files = [prepared.manifest, prepared.val_manifest or prepared.manifest]
    say(*(f"  {path}" for path in dict.fromkeys((*files, prepared.broken, prepared.summary_file))))
    if not summary["classes"]:
        log.info("the list has no labels")
        suggest("predict", options.output, "--checkpoint", "CHECKPOINT")
        return 0
    # Validation lists keep the failed videos.
    sides = ("train", "val") if summary["splits"] or divided else ("val" if options.keep_failed else "train",)
    words = ["--config", "finetune" if divided else "RECIPE"]
    for side, file in zip(sides, files, strict=False):
        root = [f"--data.{side}_root", options.resized_dir or options.videos] if options.relative else []
        words += [f"--data.{side}_manifest", str(file), *root]
    words += ["--data.class_list", summary["class_list"]] if summary["class_list"] else []
    suggest("train", *words, *(["--final-test"] if divided else []))
    if divided:
        log.info("on a CPU alone: --config finetune_small")
    return 0
