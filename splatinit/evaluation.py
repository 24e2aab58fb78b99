"""Scoring trained Gaussians on a scene's test views.

The ruler belongs to the scene: its test views, their size and its background. A render is clamped and rounded to 8 bit,
saved, read back and then compared with the photo at the same size, so that anyone can recompute every number from the
files (the protocol of Kerbl et al. 2023). Means are means over images.

Where a photo has a mask, only its pixels that count are measured (see :mod:`splatinit.metrics`), and the mask is saved
as masks/NAME.png, 255 where a pixel counts. Render and truth are saved whole; the error map is grey, and the contact
sheet is dimmed, where nothing was measured. A view whose mask leaves no pixel is left out.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from . import device as devices
from .errors import BackendError, ConfigError, FormatError, OutOfMemory, WeightsMissing
from .memory import gigabytes, is_no_memory, require_evaluation
from .progress import Progress, Silent
from .types import Gaussians, Pixels, Scene, View

if TYPE_CHECKING:
    import torch

    from .metrics import Lpips
    from .raster.base import Rasterizer, RasterSettings

# Rows of the contact sheet: as many as one looks at.
SHEET_ROWS = 8


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """What is measured.

    Attributes:
        lpips: networks of LPIPS, of "vgg" (the one of 3DGS papers) and "alex"; each is a column. On a CPU vgg costs
            some seconds per megapixel and view, alex a tenth of it; empty for none.
        during: fractions of the training after which the mean PSNR over all test views is measured too, as quality over
            time: of its steps, or of its time where train.seconds is set; empty for none. It is written into
            train.jsonl, changes no number of the training and does not count as its time; it costs the time of drawing
            and decoding every test view, each time.
    """

    lpips: tuple[Literal["vgg", "alex"], ...] = ("vgg",)
    during: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for fraction in self.during:
            if not 0 < fraction <= 1:
                raise ConfigError(
                    f"eval.during holds {fraction:g}; expected fractions of the training, above 0 up to 1."
                )


@dataclass(frozen=True, kw_only=True)
class ImageScore:
    """The scores of one test view; None where one could not be measured (the report's notes say why).

    Attributes:
        name: of the view.      psnr: dB.      ssim: at most 1.      lpips: network → distance.
        render, truth, error: the pictures' paths relative to the evaluation folder, or None if nothing was saved.
        mask: the mask's path, or None if every pixel counts or nothing was saved.
    """

    name: str
    psnr: float
    ssim: float | None
    lpips: Mapping[str, float | None]
    render: str | None = None
    truth: str | None = None
    error: str | None = None
    mask: str | None = None


@dataclass(frozen=True, kw_only=True)
class EvalReport:
    """Scores of all test views, and their means.

    Attributes:
        images: in order of the views; without those that are masked completely.
        gaussians: how many were drawn.
        render_seconds: mean time of drawing one view, files and metrics not counted; None without test views.
        backend: the rasterizer that drew them.
        notes: remarks on what could not be measured.
    """

    images: tuple[ImageScore, ...]
    gaussians: int
    render_seconds: float | None
    backend: str
    notes: tuple[str, ...] = ()

    @property
    def psnr(self) -> float | None:
        """Mean PSNR in dB over the test views; None without any."""
        return _mean([image.psnr for image in self.images])

    @property
    def ssim(self) -> float | None:
        return _mean([image.ssim for image in self.images])

    @property
    def lpips(self) -> dict[str, float | None]:
        """Network → mean distance; None where a view has no value."""
        nets = list(self.images[0].lpips) if self.images else []
        return {net: _mean([image.lpips[net] for image in self.images]) for net in nets}

    def to_json(self) -> dict[str, Any]:
        """Plain values for metrics.json; an infinite PSNR (equal images) is written as null."""
        return {
            "mean": {"psnr": _finite(self.psnr), "ssim": self.ssim, "lpips": self.lpips},
            "gaussians": self.gaussians,
            "render_seconds": self.render_seconds,
            "backend": self.backend,
            "notes": list(self.notes),
            "images": [
                {
                    "name": image.name,
                    "psnr": _finite(image.psnr),
                    "ssim": image.ssim,
                    "lpips": dict(image.lpips),
                    "render": image.render,
                    "truth": image.truth,
                    "error": image.error,
                    "mask": image.mask,
                }
                for image in self.images
            ],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> EvalReport:
        """The report that :meth:`to_json` wrote. Raises FormatError if a key is missing."""
        try:
            images = tuple(
                ImageScore(**{**image, "psnr": math.inf if image["psnr"] is None else image["psnr"]})
                for image in value["images"]
            )
            return cls(
                images=images,
                gaussians=value["gaussians"],
                render_seconds=value["render_seconds"],
                backend=value["backend"],
                notes=tuple(value["notes"]),
            )
        except (KeyError, TypeError) as error:
            raise FormatError(
                f"metrics.json is not of this version ({type(error).__name__}: {error}).", hint="Evaluate again."
            ) from error


def evaluate(
    scene: Scene,
    gaussians: Gaussians,
    *,
    rasterizer: Rasterizer,
    settings: RasterSettings,
    config: EvalConfig = EvalConfig(),
    out_dir: Path | None = None,
    progress: Progress = Silent(),
) -> EvalReport:
    """Score ``gaussians`` on the test views of ``scene``, drawn and measured on the device of the rasterizer.

    Args:
        out_dir: where renders/, truth/, errors/, masks/, contact_sheet.png and metrics.json are written; None writes
            nothing (the numbers are the same: PNG keeps 8-bit colours as they are).

    Raises:
        ConfigError: an unknown LPIPS network.
        BackendError: the rasterizer gave colours that are not finite.
        OutOfMemory: the views are too large to be measured there.
        SceneError, FormatError: a photo is gone or damaged.
    """
    from .io.atomic import write_json

    device = devices.device_of(rasterizer)
    _require_memory(scene, vgg="vgg" in config.lpips, device=device)
    notes: list[str] = []
    networks = _networks(config.lpips, notes, progress, device) if scene.test else {}
    gaussians = devices.moved(gaussians, device)
    if not scene.test:
        notes.append("The scene has no test views, so nothing was measured.")
    files = file_names([view.name for view in scene.test])
    shown = set(_spread(len(scene.test), SHEET_ROWS))

    progress.start("evaluate", len(scene.test))
    scores, rows, seconds = [], [], 0.0
    for index, view, pixels in _measured_views(scene, notes):
        begun = time.perf_counter()
        image = draw(view, gaussians, scene.background, rasterizer=rasterizer, settings=settings)
        seconds += time.perf_counter() - begun
        truth = photo(pixels, scene.background)
        with _named_if_too_large(view, device):
            score, pictures = _score(view.name, image, truth, pixels.mask, networks, device, files, out_dir, notes)
        scores.append(score)
        if index in shown:
            rows.append((score, pictures))
        progress.advance(index + 1, psnr=round(score.psnr, 2))
    report = EvalReport(
        images=tuple(scores),
        gaussians=len(gaussians),
        render_seconds=seconds / len(scores) if scores else None,
        backend=rasterizer.name,
        notes=tuple(dict.fromkeys(notes)),
    )
    for note in report.notes:
        progress.note(note)
    if out_dir is not None:
        if rows:
            _write_sheet(out_dir / "contact_sheet.png", rows, report)
        # Last, so that metrics.json stands for a complete folder.
        write_json(out_dir / "metrics.json", report.to_json())
    progress.finish(summary(report))
    return report


def mean_psnr(scene: Scene, gaussians: Gaussians, *, rasterizer: Rasterizer, settings: RasterSettings) -> float | None:
    """Only the mean PSNR of :func:`evaluate` in dB, the same number; None without a test view that can be measured.

    Raises as :func:`evaluate` does.
    """
    from .metrics import psnr

    device = devices.device_of(rasterizer)
    _require_memory(scene, vgg=False, device=device)
    gaussians = devices.moved(gaussians, device)
    values = []
    for _, view, pixels in _measured_views(scene, []):
        image = draw(view, gaussians, scene.background, rasterizer=rasterizer, settings=settings)
        with _named_if_too_large(view, device):
            values.append(psnr(*_as_measured(image, photo(pixels, scene.background), pixels.mask, device)))
    return _mean(values)


def _require_memory(scene: Scene, *, vgg: bool, device: torch.device) -> None:
    require_evaluation([(view.camera.width, view.camera.height) for view in scene.test], vgg=vgg, device=device)


@contextmanager
def _named_if_too_large(view: View, device: torch.device) -> Iterator[None]:
    """An allocation that fails in measuring ``view`` although it was expected to fit is said by its name."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, BackendError) or not is_no_memory(error):
            raise
        there = ""
        if device.type != "cpu":
            there = f" on {device}, {gigabytes(devices.device_memory(device).free)} are free"
        raise OutOfMemory(
            f"Measuring '{view.name}' ({view.camera.width}×{view.camera.height}) found no memory{there}.",
            hint="Use a smaller --max-size, eval.lpips=alex, or close other programs.",
            view=view.name,
        ) from error


def _measured_views(scene: Scene, notes: list[str]) -> Iterator[tuple[int, View, Pixels]]:
    """Number, view and photo of each test view that can be measured; ``notes`` hears of the others."""
    from .decoding import each_decoded

    for index, (view, pixels) in enumerate(each_decoded(scene.test)):
        if pixels.mask is not None and not pixels.mask.any():
            notes.append(f"'{view.name}' is masked completely, and is not part of the scores.")
        else:
            yield index, view, pixels


def _as_measured(
    image: np.ndarray, truth: np.ndarray, mask: np.ndarray | None, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """What metrics take, of 8-bit pictures: both in [0, 1], and which pixels count; on ``device``."""
    import torch

    a, b = (torch.from_numpy(picture / 255.0).to(device) for picture in (image, truth))
    return a, b, None if mask is None else torch.from_numpy(mask > 0).to(device)


def files_of(report: EvalReport, out_dir: Path) -> list[Path]:
    """The files that :func:`evaluate` wrote for this report."""
    images = report.images
    pictures = [path for image in images for path in (image.render, image.truth, image.error, image.mask) if path]
    sheet = ["contact_sheet.png"] if report.images else []
    return [out_dir / name for name in (*pictures, *sheet, "metrics.json")]


def summary(report: EvalReport) -> str:
    """The means in one line."""
    if not report.images:
        return "no test views"
    parts = [f"PSNR {report.psnr:.2f} dB"]
    if report.ssim is not None:
        parts.append(f"SSIM {report.ssim:.4f}")
    parts += [f"LPIPS ({net}) {value:.4f}" for net, value in report.lpips.items() if value is not None]
    return " · ".join(parts) + f" over {len(report.images)} test views"


def draw(
    view: View,
    gaussians: Gaussians,
    background: tuple[float, float, float] | None,
    *,
    rasterizer: Rasterizer,
    settings: RasterSettings,
) -> np.ndarray:
    """The view as [h, w, 3] uint8 over ``background`` (black if None). The Gaussians are where the rasterizer draws."""
    import torch

    from .io.images import to_uint8

    color = torch.tensor(background or (0.0, 0.0, 0.0), dtype=gaussians.means.dtype)
    with torch.no_grad():
        rgb = rasterizer.render(gaussians, view.camera, settings=settings, background=color).rgb
    if not rgb.isfinite().all():
        raise BackendError(
            f"Backend '{rasterizer.name}' drew {view.name} with {int((~rgb.isfinite()).sum())} non-finite values.",
            hint="The Gaussians hold numbers that are not finite, or too large; was the splat file edited?",
        )
    return to_uint8(rgb.cpu().numpy())


def photo(pixels: Pixels, background: tuple[float, float, float] | None) -> np.ndarray:
    """A decoded photo as [h, w, 3] uint8, transparent parts composed over ``background``."""
    from .io.images import to_uint8

    if pixels.alpha is None:
        return pixels.rgb
    alpha = pixels.alpha[..., None] / 255.0
    return to_uint8(pixels.rgb / 255.0 * alpha + np.asarray(background or (0.0, 0.0, 0.0)) * (1 - alpha))


def _networks(
    names: Sequence[str], notes: list[str], progress: Progress, device: torch.device
) -> dict[str, Lpips | None]:
    """The LPIPS networks by name, on ``device``; None, with a note, for one whose weights are not to be had."""
    from .metrics import Lpips

    networks: dict[str, Lpips | None] = {}
    for name in names:
        try:
            networks[name] = Lpips(name, progress=progress, device=device)
        except WeightsMissing as error:
            networks[name] = None
            notes.append(f"No LPIPS ({name}): {error}")
    return networks


def _score(
    name: str,
    image: np.ndarray,
    truth: np.ndarray,
    mask: np.ndarray | None,
    networks: Mapping[str, Lpips | None],
    device: torch.device,
    files: Mapping[str, str],
    out_dir: Path | None,
    notes: list[str],
) -> tuple[ImageScore, tuple[np.ndarray, ...]]:
    """Save the pictures of one view, and measure what was saved."""
    from . import metrics
    from .errors import ShapeError
    from .io.images import write_png
    from .report.figures import dimmed, error_map

    error = error_map(image, truth, mask)
    saved = {"render": image, "truth": truth, "error": error} | ({} if mask is None else {"mask": mask})
    paths: dict[str, str | None] = dict.fromkeys(saved)
    if out_dir is not None:
        paths = {kind: f"{_FOLDERS[kind]}/{files[name]}" for kind in saved}
        for kind, picture in saved.items():
            write_png(out_dir / paths[kind], picture)
        image, truth = (_read_png(out_dir / paths[kind]) for kind in ("render", "truth"))
    a, b, counts = _as_measured(image, truth, mask, device)

    def unless_too_small(measure) -> float | None:
        try:
            return measure(a, b, counts)
        except ShapeError as problem:
            notes.append(f"Not measured: {problem}")
            return None

    score = ImageScore(
        name=name,
        psnr=metrics.psnr(a, b, counts),
        ssim=unless_too_small(metrics.ssim),
        lpips={net: None if lpips is None else unless_too_small(lpips) for net, lpips in networks.items()},
        **paths,
    )
    return score, (dimmed(truth, mask), dimmed(image, mask), error)


def _read_png(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image)


_FOLDERS = {"render": "renders", "truth": "truth", "error": "errors", "mask": "masks"}


def _write_sheet(path: Path, rows: Sequence[tuple[ImageScore, tuple[np.ndarray, ...]]], report: EvalReport) -> None:
    from .io.images import write_png
    from .report.figures import ERROR_FULL, SheetRow, contact_sheet

    sheet_rows = []
    for score, pictures in rows:
        numbers = [f"{score.psnr:.2f} dB"]
        numbers += [f"SSIM {score.ssim:.3f}"] if score.ssim is not None else []
        numbers += [f"LPIPS {net} {value:.3f}" for net, value in score.lpips.items() if value is not None]
        sheet_rows.append(SheetRow(score.name, "  ".join(numbers), pictures))
    headings = ("photo", "render", f"error (pale: {ERROR_FULL:g} and more)")
    caption = f"{summary(report)}; {report.gaussians} Gaussians".replace(" · ", ", ")
    write_png(path, contact_sheet(sheet_rows, headings, caption))


def file_names(names: Sequence[str], *, flat: bool = False) -> dict[str, str]:
    """View name → relative path of its PNG: unique, and safe on every file system.

    The PNGs lie in the same folders as the views, or with ``flat`` all in one.
    """
    files: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        parts = name.split("/")
        parts[-1] = parts[-1].rsplit(".", 1)[0]
        # No part may be empty, hidden, or lead out of the folder.
        stem = ("_" if flat else "/").join(re.sub(r"[^\w.-]+", "_", part).lstrip(".") or "view" for part in parts)
        candidate, number = stem, 2
        # Some file systems do not tell capitals from small letters.
        while candidate.lower() in taken:
            candidate, number = f"{stem}-{number}", number + 1
        taken.add(candidate.lower())
        files[name] = candidate + ".png"
    return files


def _spread(count: int, most: int) -> list[int]:
    """At most ``most`` indices of 0 … count − 1, evenly spread, first and last among them."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def _mean(values: Sequence[float | None]) -> float | None:
    """None if there is no value, or one is missing: a mean over part of the views is another ruler."""
    return None if not values or None in values else float(sum(values) / len(values))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
