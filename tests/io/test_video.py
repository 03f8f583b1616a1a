"""Videos keep their size, order, rate and rotation; a broken one is refused and half a one is never left."""

import logging
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from cliff_ms.io import video
from cliff_ms.io.errors import InputError
from cliff_ms.io.images import read_image

FFMPEG = video.find_ffmpeg()
needs_ffmpeg = pytest.mark.skipif(FFMPEG is None, reason="imageio-ffmpeg is not installed")


def frames(count, height, width):
    """Frame k: grey level 40 + 10 k, with the top left quarter red."""
    for k in range(count):
        frame = np.full((height, width, 3), 40 + 10 * k, np.uint8)
        frame[: height // 2, : width // 2] = (220, 30, 30)
        yield frame


def write(path, count=8, img_hw=(64, 96), fps=12.5):
    with video.VideoWriter(path, fps, img_hw) as writer:
        for frame in frames(count, *img_hw):
            writer.write(frame)
    return path


def check(path, img_hw, even_hw):
    with video.VideoReader(path) as reader:
        assert reader.img_hw == even_hw
        assert reader.fps == pytest.approx(12.5)
        assert reader.frame_count == 8
        decoded = list(reader)
    assert len(decoded) == 8
    for frame, sent in zip(decoded, frames(8, *img_hw), strict=True):
        assert frame.dtype == np.uint8
        np.testing.assert_allclose(frame[8, 8], sent[8, 8], atol=12)
        np.testing.assert_allclose(frame[-1, -1], sent[-1, -1], atol=6)  # the repeated row or column


@needs_ffmpeg
@pytest.mark.parametrize("img_hw, even_hw", [((64, 96), (64, 96)), ((63, 95), (64, 96))])
def test_h264_round_trip(tmp_path, img_hw, even_hw):
    path = write(tmp_path / "clip.mp4", img_hw=img_hw)
    check(path, img_hw, even_hw)
    told = subprocess.run([FFMPEG, "-hide_banner", "-i", str(path)], capture_output=True, text=True).stderr
    assert re.search(r"Video: h264 .*yuv420p", told)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # plays while it loads
    assert os.listdir(tmp_path) == ["clip.mp4"]


def test_without_ffmpeg_it_warns_and_writes_mpeg4(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(video, "find_ffmpeg", lambda: None)
    with caplog.at_level(logging.WARNING, "cliff_ms"):
        path = write(tmp_path / "clip.mp4", img_hw=(63, 95))
    assert "browsers do not play" in caplog.text
    check(path, (63, 95), (64, 96))


@pytest.mark.parametrize("ffmpeg", [pytest.param(FFMPEG, marks=needs_ffmpeg), None], ids=["h264", "mpeg4"])
def test_an_exception_leaves_nothing(tmp_path, monkeypatch, ffmpeg):
    monkeypatch.setattr(video, "find_ffmpeg", lambda: ffmpeg)
    with pytest.raises(KeyError), video.VideoWriter(tmp_path / "clip.mp4", 25, (64, 96)) as writer:
        writer.write(next(frames(1, 64, 96)))
        raise KeyError
    with pytest.raises(ValueError, match=r"shape \(64, 96, 3\), but got uint8 of shape \(96, 64, 3\)"):
        with video.VideoWriter(tmp_path / "clip.mp4", 25, (64, 96)) as writer:
            writer.write(next(frames(1, 96, 64)))
    assert os.listdir(tmp_path) == []
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="Cannot write .*clip.mp4"):
        write(tmp_path / "notes.txt" / "clip.mp4", img_hw=(640, 960))  # more than a pipe holds: FFmpeg is gone by then


@needs_ffmpeg
def test_no_room_for_the_last_bytes_leaves_nothing(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (3, 480, 640, 3), np.uint8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(InputError, match="Cannot write .*clip.mp4"):
            with video.VideoWriter(tmp_path / "clip.mp4", 25, (480, 640)) as writer:
                for frame in noise:
                    writer.write(frame)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []


@needs_ffmpeg
def test_rotation_of_a_phone_is_applied(tmp_path):
    flat, turned, still = write(tmp_path / "flat.mp4"), tmp_path / "turned.mp4", tmp_path / "still.png"
    command = [FFMPEG, "-v", "error", "-display_rotation", "90", "-i", str(flat), "-c", "copy", str(turned)]
    subprocess.run(command, check=True)
    subprocess.run([FFMPEG, "-v", "error", "-i", str(turned), "-frames:v", "1", str(still)], check=True)
    with video.VideoReader(turned) as reader:
        assert reader.img_hw == (96, 64)
        first = next(iter(reader))
    np.testing.assert_allclose(first, read_image(still), atol=3)  # FFmpeg's own opinion


def convert(source, target, *options):
    subprocess.run([FFMPEG, "-v", "error", "-i", str(source), *options, str(target)], check=True)
    return target


@needs_ffmpeg
def test_times_are_those_of_the_file(tmp_path):
    # Every frame but the first three is shown for twice as long as the one before.
    slower = convert(write(tmp_path / "a.mp4"), tmp_path / "b.mkv", "-vf", "setpts=N*N/12.5/TB", "-fps_mode", "vfr")
    with video.VideoReader(slower) as reader:
        times = [time for time, _ in reader.timed()]
    np.testing.assert_allclose(times, np.arange(8) ** 2 / 12.5, atol=2e-3)


@needs_ffmpeg
@pytest.mark.parametrize(("ratio", "img_hw"), [("2/1", (64, 192)), ("1/2", (128, 96))])
def test_pixels_become_square(tmp_path, ratio, img_hw):
    wide = convert(write(tmp_path / "a.mp4"), tmp_path / "b.mp4", "-vf", f"setsar={ratio}")
    with video.VideoReader(wide) as reader:
        assert reader.img_hw == img_hw
        first = next(iter(reader))
    assert first.shape == (*img_hw, 3)
    np.testing.assert_allclose(first[img_hw[0] // 2 - 9, img_hw[1] // 2 - 9], (220, 30, 30), atol=25)


@needs_ffmpeg
def test_pixels_become_square_in_a_turned_video(tmp_path):
    wide = convert(write(tmp_path / "a.mp4"), tmp_path / "b.mp4", "-vf", "setsar=2/1")
    turned = tmp_path / "turned.mp4"
    command = [FFMPEG, "-v", "error", "-display_rotation", "90", "-i", str(wide), "-c", "copy", str(turned)]
    subprocess.run(command, check=True)
    with video.VideoReader(turned) as reader:
        assert reader.img_hw == (192, 64)
        first = next(iter(reader))
    assert first.shape == (192, 64, 3)
    np.testing.assert_allclose(first[105, 9], (220, 30, 30), atol=25)  # the lower left quarter, turned anticlockwise
    np.testing.assert_allclose(first[87, 9], 40, atol=25)


@needs_ffmpeg
@pytest.mark.parametrize("suffix", [".mpg", ".ts", ".webm", ".gif", ".wmv"])
def test_other_containers_are_videos(tmp_path, suffix):
    other = convert(write(tmp_path / "a.mp4", img_hw=(64, 96), fps=25), tmp_path / f"b{suffix}")
    assert video.is_video(other)
    with video.VideoReader(other) as reader:
        assert len(list(reader)) == 8


@needs_ffmpeg
def test_sound_is_copied_and_does_not_change_the_length(tmp_path):
    sound = ["-f", "lavfi", "-i", "sine=duration=9", "-c:v", "copy", "-map", "0:v", "-map", "1:a"]
    source = convert(write(tmp_path / "a.mp4", fps=8), tmp_path / "b.mp4", *sound)
    for path, has_sound in ((source, True), (tmp_path / "a.mp4", False)):
        with video.VideoWriter(tmp_path / "c.mp4", 8, (64, 96), path, 0.25) as writer:
            for frame in frames(6, 64, 96):
                writer.write(frame)
        told = subprocess.run([FFMPEG, "-hide_banner", "-i", str(tmp_path / "c.mp4")], capture_output=True, text=True)
        assert ("Audio: aac" in told.stderr) == has_sound and re.search(r"Duration: 00:00:00\.[78]", told.stderr)
        with video.VideoReader(tmp_path / "c.mp4") as reader:
            assert len(list(reader)) == 6


@needs_ffmpeg
def test_a_name_that_is_no_text(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xd5\xd5.mp4"))
    write(tmp_path / "a.mp4", fps=8).rename(path)
    assert video.is_video(path)
    with video.VideoReader(path) as reader:
        assert len(list(reader)) == 8


@needs_ffmpeg
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_sound_stays_with_the_picture(tmp_path, suffix):
    """A sound that sets in at 1.0 s, and pictures that begin 0.6 s after the file: it sets in 0.4 s after the first."""
    tone = ["-f", "lavfi", "-i", "sine=frequency=800:duration=3,volume=enable='lt(t,1)':volume=0"]
    source = tmp_path / f"late{suffix}"
    streams = ["-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", "aac"]
    late = ["-itsoffset", "0.6", "-i", str(write(tmp_path / "a.mp4", count=16, fps=8))]
    subprocess.run([FFMPEG, "-v", "error", *late, *tone, *streams, str(source)], check=True)
    for start in (0.0, 0.25):
        with video.VideoWriter(tmp_path / "c.mp4", 8, (64, 96), source, start) as writer:
            for frame in frames(8, 64, 96):
                writer.write(frame)
        raw = [FFMPEG, "-v", "error", "-i", str(tmp_path / "c.mp4"), "-ac", "1", "-ar", "8000", "-f", "s16le", "-"]
        heard = np.frombuffer(subprocess.run(raw, check=True, capture_output=True).stdout, np.int16)
        assert np.argmax(np.abs(heard.astype(int)) > 500) / 8000 == pytest.approx(0.4 - start, abs=0.05)


@needs_ffmpeg
def test_frames_that_were_cut_off_without_encoding_are_not_missed(tmp_path, caplog):
    source = convert(write(tmp_path / "a.mp4", count=20), tmp_path / "b.mp4", "-c:v", "libx264", "-g", "20")
    cut = tmp_path / "cut.mp4"
    subprocess.run([FFMPEG, "-v", "error", "-ss", "0.8", "-i", str(source), "-c", "copy", str(cut)], check=True)
    with caplog.at_level(logging.WARNING, "cliff_ms"), video.VideoReader(cut) as reader:
        assert len(list(reader)) == 10 < reader.frame_count
    assert not caplog.text


@needs_ffmpeg
def test_a_truncated_mp4_is_refused_before_any_frame(tmp_path, capfd):
    data = write(tmp_path / "clip.mp4").read_bytes()
    cuts = {"index_first.mp4": data[: len(data) - 200]}
    late = tmp_path / "late.mp4"
    subprocess.run([FFMPEG, "-v", "error", "-i", str(tmp_path / "clip.mp4"), "-c", "copy", str(late)], check=True)
    cuts["index_last.mp4"] = late.read_bytes()[: late.stat().st_size // 2]
    for name, cut in cuts.items():
        (tmp_path / name).write_bytes(cut)
        with pytest.raises(InputError, match=f"{name}' is truncated"):
            video.VideoReader(tmp_path / name)
    (tmp_path / "with_trailer.mp4").write_bytes(data + b"\xff\xf0maker's own data")
    with video.VideoReader(tmp_path / "with_trailer.mp4") as reader:
        assert len(list(reader)) == 8
    assert capfd.readouterr().err == ""


@needs_ffmpeg
def test_missing_frames_of_other_formats_are_warned_about(tmp_path, caplog):
    path = tmp_path / "clip.avi"
    source = write(tmp_path / "clip.mp4", img_hw=(480, 640))
    subprocess.run([FFMPEG, "-v", "error", "-i", str(source), "-c:v", "mjpeg", str(path)], check=True)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 5])
    with caplog.at_level(logging.WARNING, "cliff_ms"), video.VideoReader(path) as reader:
        assert 0 < len(list(reader)) < 7
    assert "states 8 frames" in caplog.text


def test_what_is_no_video_is_refused_in_one_sentence(tmp_path, capfd):
    (tmp_path / "text.mp4").write_text("a letter, not a video " * 40)
    (tmp_path / "empty.mov").touch()
    for name, message in [("text.mp4", "damaged or not a video"), ("empty.mov", "is empty"), ("no.avi", "not exist")]:
        with pytest.raises(InputError, match=f"{name}' .*{message}"):
            video.VideoReader(tmp_path / name)
    assert capfd.readouterr().err == ""
    assert video.is_video("a/B.MOV")
    assert not video.is_video("mp4.jpg")
    assert video.is_video(tmp_path / "text.mp4") and video.is_video(tmp_path / "empty.mov")


@needs_ffmpeg
def test_content_tells_videos_from_photos(tmp_path, capfd):
    clip, frame = write(tmp_path / "clip.mp4"), next(frames(1, 64, 96))
    animated = convert(clip, tmp_path / "moves.gif")
    still = convert(clip, tmp_path / "still.gif", "-frames:v", "1")
    for path, name in ((clip, "no_suffix"), (clip, "clip.rm"), (animated, "moves.jpg")):
        shutil.copy(path, tmp_path / name)
        assert video.is_video(tmp_path / name)
        with video.VideoReader(tmp_path / name) as reader:
            assert len(list(reader)) == 8
    (tmp_path / "png.mp4").write_bytes(cv2.imencode(".png", frame[..., ::-1])[1].tobytes())
    shutil.copy(still, tmp_path / "still.jpg")
    for name in ("png.mp4", "still.gif", "still.jpg"):
        assert not video.is_video(tmp_path / name)
        read = read_image(tmp_path / name)
        for part in (np.s_[:32, :48], np.s_[32:]):  # a GIF has few colours and mixes them
            np.testing.assert_allclose(read[part].mean((0, 1)), frame[part].mean((0, 1)), atol=12)
    (tmp_path / "letter.txt").write_text("a letter, not a video " * 40)
    (tmp_path / "cut.gif").write_bytes(still.read_bytes()[:40])
    assert not video.is_video(tmp_path / "letter.txt")
    with pytest.raises(InputError, match="damaged"):
        read_image(tmp_path / "cut.gif")
    assert capfd.readouterr().err == ""


@needs_ffmpeg
def test_ctrl_c_of_a_terminal_does_not_end_the_encoder(tmp_path):
    code = """
import os, signal, time
import numpy as np
from cliff_ms.io.video import VideoWriter

signal.signal(signal.SIGINT, lambda *_: None)
with VideoWriter("a.mp4", 10, (64, 64)) as writer:
    for k in range(10):
        writer.write(np.zeros((64, 64, 3), np.uint8))
        if k == 4:
            time.sleep(0.3)  # the encoder has started, and takes notice
            os.killpg(0, signal.SIGINT)
            time.sleep(0.3)
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, start_new_session=True, check=True)
    with video.VideoReader(tmp_path / "a.mp4") as reader:
        assert len(list(reader)) == 10
