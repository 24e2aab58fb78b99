"""What works on this machine, what does not, and what to do about it."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from . import __version__, environment
from .errors import MissingExtra, NotBuilt, SplatinitError
from .registry import Registry, load_object

OK, MISSING, BROKEN = "ok", "optional", "broken"
# Where torch cannot use a GPU that is there.
TORCH_WITH_CUDA = (
    "For the GPU: pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu130, or what "
    "pytorch.org says for your driver."
)


@dataclass(frozen=True)
class Finding:
    """One row: ``state`` is OK, MISSING (something optional is absent) or BROKEN; ``advice`` says what to do."""

    topic: str
    name: str
    state: str
    text: str
    advice: str = ""


def examine() -> list[Finding]:
    """All findings, in the order in which a person wants to read them."""
    return [*_machine(), *_engines(), *_devices(), *_packages(), *_parts(), *_weights()]


def _machine() -> list[Finding]:
    findings = [
        Finding("machine", "splatinit", OK, f"{__version__} on Python {sys.version.split()[0]}, {sys.platform}"),
        Finding("machine", "processor", OK, environment.processor()),
    ]
    cores = environment.cores()
    try:
        wanted = environment.wanted_threads()
        text = f"{cores} cores" if wanted is None else f"{wanted} of {cores} cores ({environment.THREADS_VARIABLE})"
        findings.append(Finding("machine", "threads", OK, text))
    except SplatinitError as error:
        findings.append(Finding("machine", "threads", BROKEN, error.message, error.hint or ""))
    gpus = environment.gpus()
    text = (
        "no NVIDIA driver"
        if gpus is None
        else ", ".join(gpus) or "an NVIDIA driver, which gives no GPU to this process"
    )
    findings.append(Finding("machine", "GPU", OK if gpus or gpus is None else MISSING, text))
    memory = environment.memory_mb()
    if memory is not None:
        free, total = memory
        low = free < 1500
        findings.append(
            Finding(
                "machine",
                "memory",
                MISSING if low else OK,
                f"{free / 1024:.1f} GB free of {total / 1024:.1f} GB",
                "Little for large photos: use --max-size 800." if low else "",
            )
        )
    return findings


def _engines() -> list[Finding]:
    from .raster import BACKENDS, make_rasterizer

    findings = []
    for spec in BACKENDS:
        try:
            rasterizer = make_rasterizer(spec.name)
        except SplatinitError as error:
            optional = isinstance(error, NotBuilt | MissingExtra) and spec.name not in ("cpu", "reference")
            findings.append(
                Finding("engines", spec.name, MISSING if optional else BROKEN, error.message, error.hint or "")
            )
            continue
        text = spec.summary
        info = environment.native_info() if spec.name == "cpu" else None
        if info is not None:
            text = "native, " + ", ".join(f"{key} {value}" for key, value in info.items())
        elif spec.name == "cuda":
            text = f"native, {environment.cuda_info()['engine']}; on {rasterizer.device} it computes what cpu does"
        findings.append(Finding("engines", spec.name, OK, text))
    return findings


def _devices() -> list[Finding]:
    """The GPUs that the CUDA engine sees, and whether torch can use them."""
    info = environment.cuda_info()
    findings = []
    for index, device in enumerate(info["devices"]):
        text = f"{device['name']}, compute capability {device['capability']}, {device['memory_gb']} GB"
        findings.append(
            Finding(
                "devices",
                f"cuda:{index}",
                OK if device["runs"] else MISSING,
                text if device["runs"] else f"{text}: the CUDA engine has no code for it",
                "" if device["runs"] else f"It was built as {info['engine']}.",
            )
        )
    idle = bool(info["gpus"]) and info["torch"] is None
    findings.append(
        Finding(
            "devices",
            "torch",
            MISSING if idle else OK,
            f"CUDA {info['torch']}" if info["torch"] else "built without CUDA",
            TORCH_WITH_CUDA if idle else "",
        )
    )
    return findings


def _packages() -> list[Finding]:
    findings = []
    for name in environment.DEPENDENCIES:
        version = environment.version_of(name)
        advice = "" if version else "Install splatinit again: pip install splatinit"
        # Both write the same cv2/ folder: the plain OpenCV does as well, where the machine has libGL.
        if version is None and name == "opencv-python-headless" and environment.version_of("opencv-python"):
            version, advice = f"{environment.version_of('opencv-python')} (opencv-python)", ""
        findings.append(Finding("packages", name, OK if version else BROKEN, version or "not installed", advice))
    from .io.video import codec

    has_ffmpeg = codec().startswith("H.264")
    findings.append(
        Finding(
            "packages",
            "video",
            OK if has_ffmpeg else MISSING,
            codec(),
            "" if has_ffmpeg else 'Browsers want H.264: pip install "splatinit[video]"',
        )
    )
    return findings


def _parts() -> list[Finding]:
    """Registered parts whose extra packages are absent."""
    findings = []
    for path in (
        "splatinit.posers:POSERS",
        "splatinit.initializers:INITIALIZERS",
        "splatinit.densify:DENSIFIERS",
        "splatinit.raster:BACKENDS",
    ):
        registry: Registry = load_object(path)
        for spec in registry:
            missing = spec.missing()
            if missing:
                install = f'pip install "splatinit[{spec.extra}]"' if spec.extra else f"pip install {' '.join(missing)}"
                text = f"{registry.kind}: {', '.join(missing)} not installed"
                findings.append(Finding("parts", spec.name, MISSING, text, install))
    return findings


def _weights() -> list[Finding]:
    from .metrics import find_weights, weights_folder

    folder, _ = weights_folder()
    findings = []
    for net in ("vgg", "alex"):
        path = find_weights(net)
        text = str(path) if path else f"not in {folder}: fetched when first needed, else an empty column"
        advice = "" if path else "Offline: put them into a folder and name it in SPLATINIT_WEIGHTS."
        findings.append(Finding("LPIPS", net, OK if path else MISSING, text, advice))
    return findings
