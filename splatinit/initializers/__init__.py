"""Initializers: where the Gaussians start. Each takes a Scene and returns an Initialization; none moves cameras.

To add one: write ``initializers/NAME.py`` with a frozen config dataclass and a class that fulfils
:class:`splatinit.initializers.base.Initializer`, then add its spec below.
"""

from dataclasses import dataclass
from typing import Any

from ..registry import Registry, Spec, load_object
from .base import Initializer


@dataclass(frozen=True, kw_only=True)
class InitializerSpec(Spec):
    """A Spec that also says what must be there before the initializer starts.

    Attributes:
        needs_points: the poser must leave points. Where a scene has poses only, they are triangulated first, which
            takes a while. An initializer for which this depends on its settings says so in a property
            ``needs_points`` of its config: ask :func:`needs_points`.
    """

    needs_points: bool = False


INITIALIZERS: Registry[InitializerSpec] = Registry("initializer", combined="union")
INITIALIZERS.register(
    InitializerSpec(
        name="sfm",
        impl="splatinit.initializers.sfm:Sfm",
        summary="the points that the poser left (COLMAP's, or triangulated with the given poses), coloured",
        source="Kerbl et al. 2023",
        needs_points=True,
    )
)
INITIALIZERS.register(
    InitializerSpec(
        name="random",
        impl="splatinit.initializers.random:Random",
        config="splatinit.initializers.random:RandomConfig",
        summary="points in a cube (the cameras', the sparse points', Blender's fixed one), or in what the cameras see",
        source="Kerbl et al. 2023; volumes as compared in arXiv:2404.12547 and arXiv:2404.09591; the frusta are ours",
    )
)
INITIALIZERS.register(
    InitializerSpec(
        name="rain",
        impl="splatinit.initializers.rain:Rain",
        config="splatinit.initializers.rain:RainConfig",
        summary="few points with large Gaussians, to be trained with a progressive low-pass filter (--config rain)",
        source="Jung et al. 2024 (RAIN-GS), arXiv:2403.09413",
        status="as in its first version; halves of a split shrink by 1.6, not 1.4",
    )
)
INITIALIZERS.register(
    InitializerSpec(
        name="acui",
        impl="splatinit.initializers.acui:Acui",
        config="splatinit.initializers.cuboid:CuboidConfig",
        summary="a regular grid in the cuboid that the cameras look at",
        source="Cai et al. 2024 (X-Gaussian), arXiv:2403.04116",
        status="the start alone, for any cameras; not its radiative model",
    )
)
INITIALIZERS.register(
    InitializerSpec(
        name="sgpose",
        impl="splatinit.initializers.sgpose:SGPose",
        config="splatinit.initializers.cuboid:CuboidConfig",
        summary="random points in the cuboid of the object, found by its silhouettes where they are known",
        source="Luo et al. 2024 (SGPose), arXiv:2409.02581; how the cuboid is found is ours",
        status="the start alone; not its depth supervision and view warping",
    )
)
INITIALIZERS.register(
    InitializerSpec(
        name="file",
        impl="splatinit.initializers.file:File",
        config="splatinit.initializers.file:FileConfig",
        summary="points that you bring: .ply .pcd .xyz .las .laz, a COLMAP model, or points on a mesh (.ply .obj .glb)",
        source="surface samples as ShapeSplat, arXiv:2408.10906",
    )
)
INITIALIZERS.register(
    InitializerSpec(
        name="depth",
        impl="splatinit.initializers.depth:Depth",
        config="splatinit.initializers.depth:DepthConfig",
        summary="points on the depth maps that came with the photos (LiDAR phones, depth cameras, rendered scenes)",
    )
)
INITIALIZERS.register(
    InitializerSpec(
        name="dense",
        impl="splatinit.initializers.dense:Dense",
        config="splatinit.initializers.dense:DenseConfig",
        summary="pixels of reference photos, matched densely in their neighbours and triangulated in one step",
        source="Kotovenko et al. 2025 (EDGS), arXiv:2504.13204; its matcher is 'roma', ours by default 'planesweep'",
        status="complete",
    )
)
INITIALIZERS.register(
    InitializerSpec(
        name="nerf",
        impl="splatinit.initializers.nerf.initializer:Nerf",
        config="splatinit.initializers.nerf.config:NerfConfig",
        summary="points drawn from a small radiance field that is fitted to the posed photos first; needs no points",
        source="Foroutan et al. 2024, arXiv:2404.12547; its constants are unpublished, those here are ours",
        status="complete; the field is a hash grid on the CPU",
    )
)
INITIALIZERS.register(
    InitializerSpec(
        name="union",
        impl="splatinit.initializers.union:Union",
        config="splatinit.initializers.union:UnionConfig",
        summary="several of the others (--init sfm+random), each adding points where those before it left room",
    )
)


def needs_points(name: str, config: Any = None) -> bool:
    """Whether the initializer ``name`` with its ``config`` (None: its defaults) needs the points of a poser."""
    spec = INITIALIZERS.spec(name)
    if config is None and spec.config is not None:
        config = load_object(spec.config)()
    return bool(getattr(config, "needs_points", spec.needs_points))


def require_packages(name: str, config: Any = None) -> None:
    """Raise MissingExtra when a package is absent that the initializer ``name`` with its ``config`` needs.

    What a config chooses (the matcher of ``dense``) may need packages, too: it says so in a method of this name.
    """
    INITIALIZERS.load(name)
    check = getattr(config, "require_packages", None)
    if check is not None:
        check()


def make_initializer(name: str, config: Any = None) -> Initializer:
    """The initializer ``name`` built with its ``config`` (None: its defaults). Raises MissingExtra, ConfigError."""
    impl = INITIALIZERS.load(name)
    if INITIALIZERS.spec(name).config is None:
        return impl()
    return impl(INITIALIZERS.config_class(name)() if config is None else config)


__all__ = ["INITIALIZERS", "Initializer", "InitializerSpec", "make_initializer", "needs_points", "require_packages"]
