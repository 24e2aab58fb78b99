"""Triangle meshes: ground truth that a scene was rendered from, a scanner's surface, another tool's model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import FormatError
from .clouds import require_package
from .ply import columns, read_triangles, read_vertices
from .pointcloud import read_ply_raw

OPEN3D_MESHES = (".obj", ".glb", ".gltf", ".stl", ".off")
# Share of the extent that steps of float32 may be, before they are said.
_COARSE = 1e-6


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh with what it knows of colour.

    Attributes:
        vertices: [n, 3] float64, units of the file.
        triangles: [m, 3] int64 vertex numbers.
        rgb: [n, 3] float32 in [0, 1] of the vertices, or None.
        uv: [m, 3, 2] texture coordinates of the corners, or None; (0, 0) is the lower left corner of the image, v goes
            up; beyond [0, 1] the image repeats.
        material: [m] which of ``textures`` a triangle shows, −1 for none; None where there are no textures.
        textures: images [h, w, 3] uint8 sRGB.
        notes: what was lost in reading.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    rgb: np.ndarray | None = None
    uv: np.ndarray | None = None
    material: np.ndarray | None = None
    textures: tuple[np.ndarray, ...] = ()
    notes: tuple[str, ...] = ()

    def select(self, index: np.ndarray) -> Mesh:
        """The triangles that ``index`` (mask or integers) picks, of the same vertices."""
        uv, material = (None if each is None else each[index] for each in (self.uv, self.material))
        return replace(self, triangles=self.triangles[index], uv=uv, material=material)

    def colours(self, triangle: np.ndarray, weights: np.ndarray) -> np.ndarray | None:
        """Colours [k, 3] at barycentric ``weights`` [k, 3] of triangles [k]: of the texture (nearest texel), else of
        the vertices (interpolated); None where the mesh has neither."""
        rgb = None
        if self.rgb is not None:
            rgb = np.einsum("kc,kca->ka", weights, self.rgb[self.triangles[triangle]]).astype(np.float32)
        if self.uv is None or self.material is None:
            return rgb
        rgb = np.full((len(triangle), 3), 0.5, np.float32) if rgb is None else rgb
        uv = np.einsum("kc,kca->ka", weights, self.uv[triangle])
        uv = np.where(np.isfinite(uv), uv, 0.0) * (1, -1)  # rows of an image go down
        for number, texture in enumerate(self.textures):
            here = self.material[triangle] == number
            size = np.array(texture.shape[1::-1])
            texel = np.minimum((np.mod(uv[here], 1.0) * size).astype(np.int64), size - 1)
            rgb[here] = texture[texel[:, 1], texel[:, 0]] / np.float32(255)
        return rgb


def read_ply_mesh(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [n, 3] float32 (scene units) and triangles [m, 3] int64 of a PLY mesh, ASCII or binary.

    Polygons of more than three corners are cut into fans. Raises FormatError: not a PLY file, truncated, without
    x y z, without faces, or with a face that names no vertex.
    """
    path = Path(path)
    vertices = read_vertices(path)
    xyz = columns(vertices, ("x", "y", "z"))
    if xyz is None:
        raise FormatError(f"{path}: the vertices have no x y z (found {', '.join(vertices.dtype.names)}).", path=path)
    return xyz, read_triangles(path)


def read_mesh(path: Path) -> Mesh:
    """A mesh by the ending of its name: .ply, or through Open3D .obj, .glb, .gltf, .stl, .off (perhaps of no faces).

    Raises:
        FormatError: not such a file, truncated or damaged; a .ply without faces.
        MissingExtra: Open3D is absent.
    """
    path = Path(path)
    if path.suffix.lower() == ".ply":
        raw = read_ply_raw(path)
        return Mesh(raw.xyz, read_triangles(path), raw.rgb)
    require_package("open3d", "open3d", f"{path}: reading {path.suffix.lower()} files")
    mesh = _joined(_open3d_parts(path), linear=path.suffix.lower() in (".glb", ".gltf"))
    if len(mesh.triangles) == 0:
        raise FormatError(
            f"{path}: Open3D finds no triangles in it; expected a mesh as {path.suffix.lower()} that has faces.",
            hint="A file that is truncated, damaged or compressed (Draco) looks like this, too. Points without faces "
            "can be given as .ply or .xyz.",
            path=path,
        )
    return mesh


@dataclass(frozen=True)
class _Part:
    """What Open3D knows of the triangles of one material; the fields as in Mesh.

    ``colour`` [3] of the material, or None where the file has none. In glTF colours of vertices and materials are
    linear, in all other files as they are shown.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    rgb: np.ndarray | None = None
    uv: np.ndarray | None = None
    texture: np.ndarray | None = None
    colour: np.ndarray | None = None


# The grey that Assimp, which reads for Open3D, gives to triangles without a material.
_NO_MATERIAL = np.float32(0.6)


def _open3d_parts(path: Path) -> list[_Part]:
    import open3d

    with open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):
        model = open3d.io.read_triangle_model(str(path))
    parts = []
    for info in model.meshes:
        mesh, uv, texture, colour = info.mesh, None, None, None
        if mesh.has_triangle_uvs():
            uv = np.asarray(mesh.triangle_uvs).reshape(-1, 3, 2)
        if 0 <= info.material_idx < len(model.materials):
            material = model.materials[info.material_idx]
            base = np.array(material.base_color, np.float32)[:3]
            colour = None if (base == _NO_MATERIAL).all() else base
            # An empty image ends the process when it is looked at as an array.
            if material.albedo_img is not None and not material.albedo_img.is_empty():
                texture = _as_rgb(np.array(material.albedo_img))
        rgb = np.array(mesh.vertex_colors, np.float32) if mesh.has_vertex_colors() else None
        if rgb is not None and rgb.max(initial=0) > 1:  # OFF counts to 255
            rgb /= 255
        vertices, triangles = np.array(mesh.vertices), np.array(mesh.triangles, np.int64)
        parts.append(_Part(vertices, triangles, rgb, uv, texture, colour))
    return parts


def _as_rgb(image: np.ndarray) -> np.ndarray | None:
    """[h, w, 3] uint8 of an image of 8 or 16 bits (grey, grey and alpha, RGB or RGBA); None of any other."""
    if image.dtype == np.uint16:
        image = np.rint(image / 257).astype(np.uint8)
    if image.dtype != np.uint8:
        return None
    image = image.reshape(*image.shape[:2], -1)
    return image[..., :3] if image.shape[2] >= 3 else image[..., :1].repeat(3, axis=2)


def _joined(parts: list[_Part], *, linear: bool) -> Mesh:
    """One mesh of the parts. ``linear``: they are of glTF, whose base colour tints textures and vertex colours."""
    if not parts:
        return Mesh(np.zeros((0, 3)), np.zeros((0, 3), np.int64))
    vertices, triangles, rgb, uv, material, textures = [], [], [], [], [], []
    start = bare = 0
    for part in parts:
        n, m = len(part.vertices), len(part.triangles)
        vertices.append(part.vertices)
        triangles.append(part.triangles + start)
        rgb.append(_plain_colours(part, linear))
        textured = part.texture is not None and part.uv is not None
        uv.append(part.uv if textured else np.zeros((m, 3, 2)))
        material.append(np.full(m, len(textures) if textured else -1))
        textures += [_tinted(part.texture, part.colour if linear else None)] if textured else []
        bare += m if part.uv is not None and part.texture is None else 0
        start += n
    coloured = any(each is not None for each in rgb)
    if coloured:
        grey = [np.full((len(each), 3), 0.5, np.float32) for each in vertices]
        rgb = [other if each is None else each for each, other in zip(rgb, grey, strict=True)]
    xyz = np.concatenate(vertices)
    notes = _single_precision(xyz)
    if bare:
        notes.append(
            f"{bare} of its triangles have texture coordinates and no texture that can be read: it lies beside "
            "the mesh under the name that the file says, as PNG or JPEG"
        )
    return Mesh(
        vertices=xyz,
        triangles=np.concatenate(triangles),
        rgb=np.concatenate(rgb) if coloured else None,
        uv=np.concatenate(uv) if textures else None,
        material=np.concatenate(material) if textures else None,
        textures=tuple(textures),
        notes=tuple(notes),
    )


def _single_precision(xyz: np.ndarray) -> list[str]:
    """Assimp keeps vertices in float32: say so where its steps can be seen in the surface."""
    xyz = xyz[np.isfinite(xyz).all(axis=1)]
    if len(xyz) == 0:
        return []
    far, extent = float(np.abs(xyz).max()), float(np.ptp(xyz, axis=0).max())
    step = float(np.spacing(np.float32(far)))
    if step <= _COARSE * extent:
        return []
    return [
        f"at coordinates of {far:.3g}, its vertices were rounded to {step:.2g} units of the file, of an extent of "
        f"{extent:.3g}: export it with a local origin, or as .ply in double precision"
    ]


def _plain_colours(part: _Part, linear: bool) -> np.ndarray | None:
    """[n, 3] in [0, 1] of the vertices, else of the material; None where it is white, as where none was given."""
    rgb, colour = part.rgb, part.colour
    if rgb is None:
        if colour is None or (colour >= 1).all():
            return None
        rgb = np.broadcast_to(colour, (len(part.vertices), 3))
    elif linear and colour is not None:
        rgb = rgb * colour
    rgb = rgb.clip(0, 1)
    return (_srgb(rgb) if linear else rgb).astype(np.float32)


def _tinted(texture: np.ndarray, colour: np.ndarray | None) -> np.ndarray:
    """The texture times a linear colour [3]: what a factor beside a texture means in glTF 2.0, §3.9.2."""
    if colour is None or (colour >= 1).all():
        return texture
    levels = np.arange(256) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    table = np.rint(255 * _srgb((linear[:, None] * colour).clip(0, 1))).astype(np.uint8)  # [256, 3]
    return np.stack([table[texture[..., channel], channel] for channel in range(3)], axis=2)


def _srgb(linear: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
