"""Densifiers: what changes the number of Gaussians while they train.

To add one: write ``densify/NAME.py`` with a class that fulfils :class:`splatinit.densify.base.Densifier` (constructed
with its config, or with nothing when it has none), change rows only through ``densify/edit.py``, add its spec below.
"""

from ..registry import Registry, Spec

DENSIFIERS: Registry[Spec] = Registry("densifier")
DENSIFIERS.register(
    Spec(
        name="adc",
        impl="splatinit.densify.adc:Adc",
        config="splatinit.densify.adc:AdcConfig",
        summary="clone, split, prune and reset opacities: the adaptive density control of 3DGS",
        source="Kerbl et al. 2023, section 5.2; numbers of gsplat's DefaultStrategy; absgrad: arXiv:2404.10484",
        status="as published, but pruning by size is off unless set, and intervals have a minimum in steps",
    )
)
DENSIFIERS.register(
    Spec(
        name="none",
        impl="splatinit.densify.none:NoDensify",
        summary="the number of Gaussians stays as it starts: shows what the start alone is worth",
    )
)
DENSIFIERS.register(
    Spec(
        name="prune",
        impl="splatinit.densify.prune:Prune",
        config="splatinit.densify.prune:PruneConfig",
        summary="all opacities fade a little and faint Gaussians are removed, none are added: for dense starts",
        source="EDGS: Kotovenko et al. 2025, arXiv:2504.13204; numbers of the authors' code",
        status="as published, but faint Gaussians are removed at intervals instead of after every step",
    )
)

__all__ = ["DENSIFIERS"]
