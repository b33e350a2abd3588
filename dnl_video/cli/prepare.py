"""`dnl-video prepare`: an official list and a folder in, a manifest of the videos that can be read out."""

from __future__ import annotations

import argparse
import shlex

DESCRIPTION = """Find the videos of a list, look into each, and write the manifest to train or evaluate on.

Each file is opened as training will open it, and a sample of its frames is decoded, in processes of their
own: a file that crashes or hangs the decoder is reported and the rest goes on. Run it again, also after an
interruption, and only files that are new or changed are looked at (OUT.journal.jsonl remembers the others).

  OUT.csv            path,label,video_id,num_frames,fps,width,height,codec,duration_s,decoder,status
  OUT.broken.csv     what is missing, broken or listed twice, each with its reason
  OUT.summary.json   counts: listed, found, missing, broken by reason, per class

Lists: official CSVs of Kinetics-400, -600 and -700 (files named ID_000010_000020.mp4 or ID.mp4, anywhere
below DIR), CSVs with the columns path,label, and `path label` lines. Without --annotations, DIR holds one
folder a class. Folders of extracted frames (img_00001.jpg, ...) are videos, too.

examples:
  dnl-video prepare --annotations kinetics_train.csv --videos k400/train --classes kinetics400 --out train.csv
  dnl-video prepare --annotations kinetics_val.csv --videos k400/val --out val.csv --keep-failed
  dnl-video prepare --videos my_classes --out train.csv
  dnl-video prepare --annotations kinetics_train.csv --videos k400/train --out train.csv \\
      --resize 320 --resized-dir k400_320/train
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--annotations", metavar="LIST", help="the list; leave it out where DIR holds class folders")
    parser.add_argument("--videos", metavar="DIR", required=True, help="folder of the videos")
    parser.add_argument("--out", metavar="OUT.csv", required=True, help="manifest to write")
    parser.add_argument(
        "--classes",
        metavar="FILE",
        help="class names that labels must be among: a file, or kinetics400, kinetics600, kinetics700",
    )
    parser.add_argument(
        "--keep-failed",
        action="store_true",
        help="list missing and broken videos in OUT.csv, too: for validation, so that evaluate counts them",
    )
    parser.add_argument(
        "--relative",
        action="store_true",
        help="write paths relative to the folder of the videos (set it as root later)",
    )
    parser.add_argument(
        "--frames-fps",
        type=float,
        default=30.0,
        metavar="FPS",
        help="frames a second of folders of frames (default: %(default)g)",
    )
    check = parser.add_argument_group("checking")
    check.add_argument("--workers", type=int, metavar="N", help="processes (default: the cores, 8 at most)")
    check.add_argument(
        "--sample-frames",
        type=int,
        default=8,
        metavar="N",
        help="frames decoded of each video, the first and the last among them (default: %(default)s)",
    )
    check.add_argument(
        "--timeout",
        type=float,
        default=120.0,
        metavar="S",
        help="seconds a file may take before it counts as broken (default: %(default)g)",
    )
    check.add_argument(
        "--retry-broken", action="store_true", help="look again at files that were broken in an earlier run"
    )
    resize = parser.add_argument_group("transcoding")
    resize.add_argument(
        "--resize",
        type=int,
        metavar="SIDE",
        help="transcode to H.264 with this short side (320 or 256; smaller videos keep their size), a key frame at "
        "least every 16 frames, all frames, no sound",
    )
    resize.add_argument(
        "--resized-dir", metavar="DIR", help="folder for the transcoded files, which OUT.csv then lists"
    )
    resize.add_argument(
        "--crf",
        type=int,
        default=20,
        metavar="N",
        help="constant rate factor, lower is better and larger (default: %(default)s)",
    )
    resize.add_argument(
        "--keep-small", action="store_true", help="do not transcode files that are small enough already"
    )


def run(args: argparse.Namespace) -> int:
    """Prepare, print the summary and say what to type next.

    Raises:
        InputError: An argument, the list or the folder cannot be used.
    """
    from dnl_video.cli.progress import file_progress
    from dnl_video.data.prepare import prepare
    from dnl_video.data.prepare_options import PrepareOptions
    from dnl_video.data.prepare_summary import summary_text

    options = PrepareOptions(
        videos=args.videos,
        out=args.out,
        annotations=args.annotations,
        classes=args.classes,
        workers=args.workers,
        sample_frames=args.sample_frames,
        timeout_s=args.timeout,
        frames_fps=args.frames_fps,
        resize=args.resize,
        resized_dir=args.resized_dir,
        crf=args.crf,
        keep_small=args.keep_small,
        keep_failed=args.keep_failed,
        relative=args.relative,
        retry_broken=args.retry_broken,
    )
    with file_progress() as show:
        prepared = prepare(options, show)
    print(summary_text(prepared.summary))
    work = f"{prepared.checked:,} files checked"
    if options.resize is not None:
        work += f", {prepared.transcoded:,} transcoded"
    print(f"{work}; the others were known" if prepared.checked < prepared.summary["found"] else work)
    print(f"  {prepared.manifest}\n  {prepared.broken}\n  {prepared.summary_file}")
    # Absolute paths need no root, but a recipe's own, which may not exist here, would be an error.
    root = f" --data.train_root {shlex.quote(options.resized_dir or options.videos)}"
    if prepared.summary["classes"]:
        print(f"next:\n  dnl-video train --config ... --data.train_manifest {shlex.quote(options.out)}{root}")
    else:
        print(f"next (the list has no labels):\n  dnl-video predict {shlex.quote(options.out)} --checkpoint ...")
    return 0
