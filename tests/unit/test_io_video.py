"""Videos as input: which frames become photos, what their metadata does to them, and what the cache believes."""

from __future__ import annotations

import dataclasses
import errno
import os
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from splatinit.config import build_config
from splatinit.errors import FormatError, NoImages, OutputError, SceneError
from splatinit.io import folders, video_frames
from splatinit.io.images import write_png
from splatinit.io.read import ReadConfig, read_images
from splatinit.pipeline import default_out, read
from splatinit.posers.colmap import _numbered

WIDTH, HEIGHT, RATE = 96, 64, 30


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SPLATINIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "frames"


def picture(shift: int, seed: int = 0) -> np.ndarray:
    """[h, w, 3] uint8: a part of a large texture, ``shift`` px to the right."""
    rng = np.random.default_rng(seed)
    texture = cv2.resize(rng.uniform(20, 235, (40, 140, 3)), None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    return np.clip(texture[20 : 20 + HEIGHT, 10 + shift : 10 + shift + WIDTH], 0, 255).astype(np.uint8)


def pan(count: int, sharp: int = 1, step: int = 1) -> list[np.ndarray]:
    """A pan of which frame ``sharp``, ``sharp + 10``, … of each ten is sharp and the others are blurred; exposure
    drifts."""
    frames = []
    for number in range(count):
        frame = picture(step * number).astype(np.float32) * (0.8 + 0.2 * np.sin(number))
        if number % 10 != sharp:
            frame = cv2.blur(frame, (7, 1))
        frames.append(frame.astype(np.uint8))
    return frames


def film(path: Path, frames: list[np.ndarray], rate: float = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = {".avi": "MJPG", ".webm": "VP80"}.get(path.suffix, "mp4v")
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), rate, frames[0].shape[1::-1])
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def ffmpeg(*arguments: str | Path) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


def numbers(images) -> list[int]:
    return [int(photo.name.removeprefix("frame_").removesuffix(".png")) for photo in images.photos]


# ---------------------------------------------------------------------------------------------------------- frames
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".m4v", ".mkv", ".avi"])
def test_the_sharpest_frame_of_each_window_is_taken(tmp_path, suffix):
    clip = film(tmp_path / f"clip{suffix}", pan(60, sharp=7))
    images = read_images(clip, ReadConfig(fps=3))
    assert numbers(images) == [7, 17, 27, 37, 47, 57]
    assert images.format == "video" and images.root == clip and not images.cameras
    assert set(images.sizes.values()) == {(WIDTH, HEIGHT)}
    assert images.notes == (
        f"read as video: clip{suffix}, 6 of 60 frames (the sharpest of each 0.333 s), {WIDTH}×{HEIGHT} px",
    )
    # The frame itself, but for what the codec did to it.
    decoded = images.photos[2].load(WIDTH, HEIGHT).rgb[..., ::-1].astype(float)
    differences = [np.abs(decoded - frame).mean() for frame in pan(60, sharp=7)]
    assert int(np.argmin(differences)) == 27 and differences[27] < 15
    # COLMAP matches them as a sequence.
    assert _numbered([photo.name for photo in images.photos])


def test_a_number_of_frames_makes_equal_windows(tmp_path):
    clip = film(tmp_path / "clip.mp4", pan(60, sharp=7))
    assert numbers(read_images(clip, ReadConfig(frames=6))) == [7, 17, 27, 37, 47, 57]
    assert len(read_images(clip, ReadConfig(frames=13)).photos) == 13
    images = read_images(clip, ReadConfig(frames=500))
    assert numbers(images) == list(range(60))
    assert "500 frames were asked for, and the video has 60" in images.notes


def test_two_frames_a_second_but_neither_few_nor_many(tmp_path, monkeypatch):
    assert (video_frames.FPS, video_frames.FEWEST, video_frames.MOST) == (2.0, 40, 300)
    clip = film(tmp_path / "clip.mp4", pan(60), rate=10)
    assert len(read_images(clip).photos) == 40
    for fewest, most, expected in ((5, 300, 12), (5, 8, 8)):
        monkeypatch.setattr(video_frames, "FEWEST", fewest)
        monkeypatch.setattr(video_frames, "MOST", most)
        folders.shutil.rmtree(tmp_path / "cache")
        assert len(read_images(clip).photos) == expected


def test_sharpness_is_not_exposure_nor_content():
    sharp = cv2.cvtColor(picture(0), cv2.COLOR_BGR2GRAY).astype(np.float32)
    blurred = cv2.blur(sharp, (5, 1))
    assert video_frames.sharpness(sharp * 0.3) == pytest.approx(video_frames.sharpness(sharp), rel=1e-4)
    assert video_frames.sharpness(sharp * 0.3 + 50) == pytest.approx(video_frames.sharpness(sharp), rel=1e-4)
    assert video_frames.sharpness(sharp * 0.3) > 1.1 * video_frames.sharpness(blurred)
    # Half of the picture without any edges.
    half = sharp.copy()
    half[:, WIDTH // 2 :] = 128
    assert video_frames.sharpness(half) > 1.1 * video_frames.sharpness(blurred)
    assert video_frames.sharpness(np.full((5, 5), 7, np.float32)) == 0


def test_still_and_black_windows_are_left_out(tmp_path):
    rng = np.random.default_rng(1)
    still = [np.clip(picture(0) + rng.normal(0, 4, (HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8) for _ in range(30)]
    black = [np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 20
    images = read_images(film(tmp_path / "clip.mp4", black + still + pan(30)), ReadConfig(fps=3))
    assert len(images.photos) == 4 and numbers(images)[0] in range(20, 30)
    assert images.notes[1:] == (
        "4 windows of 0.333 s were left out: in 2 the picture stands still and in 2 it is black or of one colour",
    )


def test_a_video_that_never_changes_is_refused(tmp_path):
    clip = film(tmp_path / "clip.mp4", [picture(0)] * 30)
    with pytest.raises(NoImages, match=r"1 of 30 frames is left \(.*in 5 the picture stands still\)"):
        read_images(clip, ReadConfig(frames=6))
    clip = film(tmp_path / "black.mp4", [np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 10)
    with pytest.raises(NoImages, match="0 of 10 frames is left .*black or of one colour"):
        read_images(clip, ReadConfig(frames=2))
    with pytest.raises(NoImages, match="1 of 1 frames is left .there are no more"):
        read_images(film(tmp_path / "one.mp4", [picture(0)]), ReadConfig(fps=2))


# -------------------------------------------------------------------------------------------------------- metadata
@pytest.mark.parametrize(("angle", "turn"), [(90, 270), (-90, 90), (180, 180)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_rotation_in_the_metadata_is_applied(tmp_path, angle, turn, suffix):
    frames = [frame.copy() for frame in pan(12)]
    for frame in frames:
        frame[: HEIGHT // 2, : WIDTH // 2] = 255  # white: top left as stored
    film(tmp_path / "stored.mp4", frames)
    clip = tmp_path / f"turned{suffix}"
    ffmpeg("-display_rotation", str(angle), "-i", tmp_path / "stored.mp4", "-c", "copy", clip)
    images = read_images(clip, ReadConfig(frames=4))
    size = (WIDTH, HEIGHT) if angle == 180 else (HEIGHT, WIDTH)
    assert set(images.sizes.values()) == {size} and f"turned by {turn}°" in images.notes[0]
    rgb = images.photos[0].load(*size).rgb.astype(float).mean(axis=2)
    h, w = rgb.shape
    corners = {"top left": rgb[: h // 2, : w // 2], "top right": rgb[: h // 2, w // 2 :]}
    corners |= {"bottom left": rgb[h // 2 :, : w // 2], "bottom right": rgb[h // 2 :, w // 2 :]}
    brightest = max(corners, key=lambda name: corners[name].mean())
    # ffmpeg's angle is counter-clockwise.
    assert brightest == {90: "bottom left", -90: "top right", 180: "bottom right"}[angle]


def test_windows_are_of_time_where_the_frame_rate_varies(tmp_path):
    film(tmp_path / "even.mp4", pan(60))
    clip = tmp_path / "uneven.mp4"
    # One second of 30 frames, then one of 6.
    ffmpeg("-i", tmp_path / "even.mp4", "-vf", "select='lt(t,1)+not(mod(n,5))'", "-fps_mode", "vfr", clip)
    images = read_images(clip, ReadConfig(frames=4))
    assert len(images.photos) == 4 and "4 of 36 frames (the sharpest of each 0.46" in images.notes[0]
    assert [number < 30 for number in numbers(images)] == [True, True, False, False]


def test_pixels_that_are_not_square_are_stretched(tmp_path):
    film(tmp_path / "square.mp4", pan(12))
    ffmpeg("-i", tmp_path / "square.mp4", "-vf", "setsar=4/3", tmp_path / "wide.mp4")
    images = read_images(tmp_path / "wide.mp4", ReadConfig(frames=3))
    assert set(images.sizes.values()) == {(128, 64)} and "128×64 px, stretched to square pixels" in images.notes[0]
    assert images.photos[0].load(128, 64).rgb.shape == (64, 128, 3)


@pytest.mark.parametrize("promised", [0.1, 1.0, 400.0, None])
def test_a_promised_length_that_is_wrong_costs_a_second_pass_and_nothing_else(tmp_path, monkeypatch, promised):
    clip = film(tmp_path / "clip.mp4", pan(60, sharp=7))
    honest, sweeps, sweep = video_frames._Stream.of, [], video_frames._sweep
    monkeypatch.setattr(
        video_frames._Stream,
        "of",
        lambda *a: dataclasses.replace(honest(*a), promised=promised, frame_count=(promised or 0) * RATE),
    )
    monkeypatch.setattr(video_frames, "_sweep", lambda *a, **k: sweeps.append(a) or sweep(*a, **k))
    images = read_images(clip, ReadConfig(frames=6))
    assert numbers(images) == [7, 17, 27, 37, 47, 57] and len(sweeps) == 2
    assert any("may be truncated" in note for note in images.notes) == (promised == 400.0)
    (folder,) = (tmp_path / "cache" / "frames").iterdir()
    assert len(list(folder.iterdir())) == 7  # nothing of the first pass stays


def test_times_only_grow():
    class Capture:
        stamps = [5.0, 5.1, 5.1, 4.0, 4.1, 9999.0, float("nan"), 1.0]

        def __init__(self):
            self.at = -1

        def grab(self):
            self.at += 1
            return self.at < len(self.stamps)

        def get(self, key):
            return self.stamps[self.at] * 1000

    times = [time for _, time in video_frames._frames(Capture(), 10.0)]
    np.testing.assert_allclose(np.diff(times), 0.1)
    assert times[0] == 0


# ---------------------------------------------------------------------------------------------------------- errors
def test_a_truncated_video_gives_what_decodes(tmp_path):
    clip = film(tmp_path / "clip.avi", pan(60))
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    images = read_images(clip, ReadConfig(frames=10))
    assert 5 <= len(images.photos) <= 10 and max(numbers(images)) < 40


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "starts like none"),
        (b"hello" * 100, "starts like none"),
        # ffmpeg would follow these to other files.
        (b"#EXTM3U\n#EXTINF:1,\nother.mp4\n", "starts like none"),
        (b"ffconcat version 1.0\nfile other.mp4\n", "starts like none"),
        (b"\0\0\0\x18ftypisom" + bytes(64), "index is damaged or missing"),
        (b"\x1aE\xdf\xa3" + bytes(64), "index is damaged or missing"),
    ],
    ids=["empty", "text", "playlist", "list", "mp4", "mkv"],
)
def test_what_is_no_video_is_refused(tmp_path, content, reason):
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(content)
    with pytest.raises(FormatError, match=rf"clip.mp4: not a video that can be read \(.*{reason}.*\); expected MP4"):
        read_images(clip)


def test_a_video_of_which_nothing_decodes_is_refused(tmp_path, monkeypatch):
    clip = film(tmp_path / "clip.mp4", pan(10))
    monkeypatch.setattr(video_frames, "_frames", lambda capture, fps: iter(()))
    with pytest.raises(FormatError, match="not a video that can be read .no frame of it decodes"):
        read_images(clip)


def test_frames_that_do_not_decode_are_skipped_and_counted(tmp_path, monkeypatch):
    clip = film(tmp_path / "clip.mp4", pan(20))
    opened = video_frames._open

    class Broken:
        def __init__(self, capture):
            self.capture, self.calls = capture, 0

        def __getattr__(self, name):
            return getattr(self.capture, name)

        def retrieve(self, buffer=None):
            self.calls += 1
            good, frame = self.capture.retrieve(buffer)
            if self.calls == 4:
                return True, frame[:-2]
            return good and self.calls != 3, frame

    @video_frames.contextmanager
    def opening(clip):
        with opened(clip) as capture:
            yield Broken(capture)

    monkeypatch.setattr(video_frames, "_open", opening)
    images = read_images(clip, ReadConfig(frames=20))
    assert len(images.photos) == 18
    assert "2 frames are damaged or of another size, and were skipped" in images.notes


def test_decoder_failures_and_impossible_sizes_are_told(tmp_path, monkeypatch):
    clip = film(tmp_path / "clip.mp4", pan(10))
    with pytest.raises(FormatError, match=r"96×64 px are 0.006144 megapixels; expected at most 0.001"):
        read_images(clip, ReadConfig(max_megapixels=0.001))

    def fails(*arguments):
        cv2.resize(np.zeros((0, 0)), (1, 1))

    monkeypatch.setattr(video_frames, "_frames", fails)
    with pytest.raises(FormatError, match="not a video that can be read .OpenCV gave up"):
        read_images(clip)

    class Empty:
        def get(self, key):
            return 0.0

    with pytest.raises(FormatError, match="says that its pictures are 0×0 px"):
        video_frames._Stream.of(clip, Empty(), ReadConfig())
    with pytest.raises(FormatError, match="gone.mp4: cannot be read .No such file"):
        video_frames._key(tmp_path / "gone.mp4", ReadConfig())
    with (
        pytest.raises(FormatError, match="gone.mp4: cannot be read .No such file"),
        video_frames._open(tmp_path / "gone.mp4"),
    ):
        pass


def test_a_folder_with_one_video(tmp_path):
    film(tmp_path / "shot" / "clip.mp4", pan(12))
    (tmp_path / "shot" / "._clip.mp4").write_bytes(b"what macOS leaves")
    images = read_images(tmp_path / "shot", ReadConfig(frames=4))
    assert images.format == "video" and images.root == tmp_path / "shot" and len(images.photos) == 4
    # A split file beside it counts as beside photos.
    (tmp_path / "shot" / "test.txt").write_text(images.photos[1].name)
    assert read_images(tmp_path / "shot", ReadConfig(frames=4)).test_names == {images.photos[1].name}
    film(tmp_path / "shot" / "b.mov", pan(12))
    with pytest.raises(SceneError, match=r"2 videos \(b.mov, clip.mp4\); expected one"):
        read_images(tmp_path / "shot")
    with pytest.raises(SceneError, match="no video in the folder; expected one of .mp4, .mov"):
        read_images(tmp_path, ReadConfig(format="video"))
    (tmp_path / "shot" / "test.txt").unlink()
    # Photos go first; the video may be their making-of.
    write_png(tmp_path / "shot" / "images" / "a.png", picture(0))
    assert read_images(tmp_path / "shot").format == "photos"


# ----------------------------------------------------------------------------------------------------------- cache
def test_frames_are_decoded_once(tmp_path, cache, monkeypatch):
    clip = film(tmp_path / "clip.mp4", pan(30))
    first = read_images(clip, ReadConfig(frames=5))
    (folder,) = cache.iterdir()
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(video_frames, "_choose", lambda *a: pytest.fail("decoded again"))
    assert read_images(clip, ReadConfig(frames=5)) == first
    # Another place, the same video.
    moved = clip.rename(tmp_path / "moved.mp4")
    assert read_images(moved, ReadConfig(frames=5)).photos == first.photos
    monkeypatch.undo()
    monkeypatch.setenv("SPLATINIT_CACHE", str(tmp_path / "cache"))
    folders.shutil.rmtree(cache)
    read_images(moved, ReadConfig(frames=5))
    assert content == {path.name: path.read_bytes() for path in folder.iterdir()}
    # Other settings or another video have their own folder.
    read_images(moved, ReadConfig(frames=6))
    read_images(moved, ReadConfig(fps=6))
    read_images(film(tmp_path / "other.mp4", pan(31)), ReadConfig(frames=5))
    assert len(list(cache.iterdir())) == 4


@pytest.mark.parametrize("damage", ["truncated", "missing", "index", "no index", "not a dict"])
def test_a_damaged_cache_is_made_again(tmp_path, cache, damage):
    clip = film(tmp_path / "clip.mp4", pan(30))
    first = read_images(clip, ReadConfig(frames=5))
    (folder,) = cache.iterdir()
    target = first.photos[3].path
    if damage == "truncated":
        target.write_bytes(target.read_bytes()[:-10])
    elif damage == "missing":
        target.unlink()
    elif damage == "no index":
        (folder / "index.json").unlink()
    else:
        (folder / "index.json").write_text("[]" if damage == "not a dict" else '{"frames": 3}')
    assert read_images(clip, ReadConfig(frames=5)) == first
    assert len({photo.load(WIDTH, HEIGHT).rgb.tobytes() for photo in first.photos}) == 5


def test_an_extraction_that_fails_leaves_nothing(tmp_path, cache, monkeypatch):
    clip = film(tmp_path / "clip.mp4", pan(30))
    write = video_frames._write

    def full(stream, frame, path):
        if path.name > "frame_000015.png":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(stream, frame, path)

    monkeypatch.setattr(video_frames, "_write", full)
    with pytest.raises(OutputError, match="could not be written: No space left on device"):
        read_images(clip, ReadConfig(frames=5))
    assert list(cache.iterdir()) == []
    monkeypatch.setattr(folders.shutil, "disk_usage", lambda path: folders.shutil._ntuple_diskusage(10, 9, 1000))
    with pytest.raises(OutputError, match=r"keeping 5 frames of clip.mp4 takes about 0.0 MB, but its disk has 0.0 MB"):
        read_images(clip, ReadConfig(frames=5))


def test_a_faster_process_wins(tmp_path, cache, monkeypatch):
    clip = film(tmp_path / "clip.mp4", pan(30))
    choose = video_frames._choose

    def slow(*arguments):
        monkeypatch.setattr(video_frames, "_choose", choose)
        read_images(clip, ReadConfig(frames=5))
        return choose(*arguments)

    monkeypatch.setattr(video_frames, "_choose", slow)
    assert len(read_images(clip, ReadConfig(frames=5)).photos) == 5
    assert len(list(cache.iterdir())) == 1


# ---------------------------------------------------------------------------------------------------------- the line
def test_progress_and_names(tmp_path):
    clip = film(tmp_path / "garden walk.mp4", pan(30))
    heard = []

    class Listener:
        def start(self, stage, total=None): ...

        def finish(self, summary=""): ...

        def note(self, text): ...

        def advance(self, done, **fields):
            heard.append((done, fields["kept"]))

    read(clip, ReadConfig(frames=5), progress=Listener())
    assert [done for done, _ in heard] == list(range(1, 31)) and heard[-1][1] in (4, 5)
    assert default_out(clip, build_config()).as_posix() == "runs/garden walk-sfm"
    assert default_out(tmp_path, build_config()).name == f"{tmp_path.name}-sfm"
