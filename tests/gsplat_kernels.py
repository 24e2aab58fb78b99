"""The kernels of gsplat 1.5 in plain torch on the CPU, so that all the rest of the installed gsplat runs without a GPU.

gsplat calls its CUDA code by name through one module, ``gsplat.cuda._backend._C``. :func:`install` puts
:class:`Kernels` there: everything above it (``gsplat.rasterization`` with its packed and distributed modes, its
autograd functions, ``meta``) is gsplat's own. The kernels are those that ``rasterization`` needs for pinhole cameras
without batches. Projection and spherical harmonics are gsplat's pure-torch functions; what these leave out (radii that
know the opacity), tiles and blending are written from the CUDA sources that the package brings
(``gsplat/cuda/csrc``), and :func:`declared` reads from its header which arguments each kernel takes.

Between kernels numbers are float32, within one they are float64, so that a test sees what the code around them does
rather than rounding. Memory that the CUDA kernels leave uninitialised is NaN here.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import torch

from splatinit.raster.reference import blend_weights

TILE_BITS = 32  # of a pair's key below its tile: the depth
MOST_SIGMAS = 3.33
ALPHA_MIN = 1 / 255


def install(monkeypatch) -> None:
    """Have gsplat call :class:`Kernels`, which did not come with it, and the backend take the CPU for its device."""
    monkeypatch.setattr("splatinit.raster.gsplat._has_kernels", lambda: False)
    monkeypatch.setitem(sys.modules, "gsplat.cuda._backend", SimpleNamespace(_C=Kernels))
    monkeypatch.setattr("splatinit.raster.gsplat.cuda_device", lambda: torch.device("cpu"))


def install_distributed(monkeypatch) -> None:
    """Let gsplat's distributed mode talk by gloo between hosts, which it was not made for.

    Its all_gather_int32 refuses host tensors by an assertion. And of gloo, all_to_all and the scatter of which torch
    makes the differentiable one want pieces of one size, where NCCL takes any: here they go by what takes any in gloo.
    """
    import torch.distributed as dist

    def all_gather_int32(world_size: int, value: int, device: torch.device) -> list[int]:
        found = [torch.empty(1, dtype=torch.int32) for _ in range(world_size)]
        dist.all_gather(found, torch.tensor([value], dtype=torch.int32))
        return [int(each) for each in found]

    def all_to_all(outputs: list[torch.Tensor], inputs: list[torch.Tensor], group=None) -> None:
        sizes = [[tensor.numel() for tensor in tensors] for tensors in (outputs, inputs)]
        received = inputs[0].new_empty(sum(sizes[0]))
        dist.all_to_all_single(received, torch.cat([tensor.reshape(-1) for tensor in inputs]), *sizes, group=group)
        for tensor, values in zip(outputs, received.split(sizes[0]), strict=True):
            tensor.copy_(values.view(tensor.shape))

    def scatter(output: torch.Tensor, pieces: list[torch.Tensor] | None, source: int, group=None) -> None:
        if dist.get_rank() != source:
            dist.recv(output, source, group=group)
            return
        for rank, piece in enumerate(pieces):
            if rank == source:
                output.copy_(piece)
            else:
                dist.send(piece.contiguous(), rank, group=group)

    monkeypatch.setattr("gsplat.rendering.all_gather_int32", all_gather_int32)
    monkeypatch.setattr(dist, "scatter", scatter)
    monkeypatch.setattr(dist, "all_to_all", all_to_all)


def declared(function: str) -> list[str]:
    """Names of the parameters of one of gsplat's C++ functions, from the installed header."""
    import gsplat

    header = (Path(gsplat.__file__).parent / "cuda" / "include" / "Ops.h").read_text()
    text = re.sub(r"//[^\n]*", "", header)
    (found,) = re.findall(rf"\b{function}\(([^)]*)\);", text)
    return [part.split()[-1] for part in found.split(",")]


def _project(means, quats, scales, viewmat, K, width, height, eps2d, compensate):
    """Of Gaussians in front of one camera: means2d [m, 2], depths [m], conics [m, 3], compensations [m] or None."""
    from gsplat.cuda._torch_impl import _fully_fused_projection, _quat_scale_to_covar_preci

    means, quats, scales, viewmat, K = (tensor.double() for tensor in (means, quats, scales, viewmat, K))
    covariances, _ = _quat_scale_to_covar_preci(quats, scales, compute_preci=False)
    _, means2d, depths, conics, compensations = _fully_fused_projection(
        means, covariances, viewmat[None], K[None], width, height, eps2d=eps2d, calc_compensations=compensate
    )
    found = means2d, depths, conics, compensations
    return [None if tensor is None else tensor[0].float() for tensor in found]


def _projection(means, quats, scales, viewmat, K, width, height, eps2d, compensations, rows, gradients, wants_pose):
    """Gradients of (means, quats, scales, viewmat), full size, from those of the rows that were seen."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (means, quats, scales, viewmat)]
    with torch.enable_grad():
        chosen = [leaf[rows] for leaf in leaves[:3]]
        outputs = _project(*chosen, leaves[3], K, width, height, eps2d, compensations is not None)
        pairs = [(o, g) for o, g in zip(outputs, gradients, strict=True) if o is not None and g is not None]
        found = torch.autograd.grad([o for o, _ in pairs], leaves, [g for _, g in pairs], allow_unused=True)
    found = [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, leaves, strict=True)]
    return (*found[:3], found[3] if wants_pose else None)


class Kernels:
    """What ``gsplat.cuda._backend._C`` has of functions."""

    # pybind11 exports the values of this enum beside the enum itself, and gsplat looks for them there.
    CameraModelType = None
    PINHOLE = "pinhole"

    @staticmethod
    def projection_ewa_3dgs_fused_fwd(
        means, covars, quats, scales, opacities, viewmats, Ks, image_width, image_height, eps2d, near_plane, far_plane,
        radius_clip, calc_compensations, camera_model,
    ):  # fmt: skip
        assert covars is None and camera_model == "pinhole" and means.ndim == 2 and len(means) > 0
        C, N = len(viewmats), len(means)
        radii = torch.zeros(C, N, 2, dtype=torch.int32)
        means2d, depths, conics = (torch.full((C, N, *more), torch.nan) for more in ((2,), (), (3,)))
        compensations = torch.zeros(C, N) if calc_compensations else None
        for c in range(C):
            z = means @ viewmats[c, 2, :3] + viewmats[c, 2, 3]
            front = ((z >= near_plane) & (z <= far_plane)).nonzero()[:, 0]
            m2, depth, conic, compensation = _project(
                means[front], quats[front], scales[front], viewmats[c], Ks[c], image_width, image_height, eps2d,
                calc_compensations,
            )  # fmt: skip
            opacity = opacities[front] * (1 if compensation is None else compensation)
            extent = (2 * (opacity / ALPHA_MIN).log()).clamp(min=0).sqrt().clamp(max=MOST_SIGMAS)
            det = conic[:, 0] * conic[:, 2] - conic[:, 1] ** 2
            sides = (extent[:, None] * (conic[:, [2, 0]] / det[:, None]).sqrt()).ceil()
            size = torch.tensor([image_width, image_height])
            seen = (opacity >= ALPHA_MIN) & ~(sides <= radius_clip).all(1)
            seen &= ((m2 + sides > 0) & (m2 - sides < size)).all(1)
            rows = front[seen]
            radii[c, rows] = sides[seen].int()
            means2d[c, rows], depths[c, rows], conics[c, rows] = m2[seen], depth[seen], conic[seen]
            if compensation is not None:
                compensations[c, rows] = compensation[seen]
        return radii, means2d, depths, conics, compensations

    @staticmethod
    def projection_ewa_3dgs_fused_bwd(
        means, covars, quats, scales, viewmats, Ks, image_width, image_height, eps2d, camera_model, radii, conics,
        compensations, v_means2d, v_depths, v_conics, v_compensations, viewmats_requires_grad,
    ):  # fmt: skip
        totals = [torch.zeros_like(tensor) for tensor in (means, quats, scales)]
        v_viewmats = torch.zeros_like(viewmats) if viewmats_requires_grad else None
        for c in range(len(viewmats)):
            rows = (radii[c] > 0).all(1).nonzero()[:, 0]
            gradients = (v_means2d, v_depths, v_conics, v_compensations)
            gradients = [None if g is None else g[c, rows] for g in gradients]
            *found, v_pose = _projection(
                means, quats, scales, viewmats[c], Ks[c], image_width, image_height, eps2d, compensations, rows,
                gradients, viewmats_requires_grad,
            )  # fmt: skip
            for total, part in zip(totals, found, strict=True):
                total += part
            if v_viewmats is not None:
                v_viewmats[c] = v_pose
        v_means, v_quats, v_scales = totals
        return v_means, None, v_quats, v_scales, v_viewmats

    @classmethod
    def projection_ewa_3dgs_packed_fwd(
        cls, means, covars, quats, scales, opacities, viewmats, Ks, image_width, image_height, eps2d, near_plane,
        far_plane, radius_clip, calc_compensations, camera_model,
    ):  # fmt: skip
        radii, *values = cls.projection_ewa_3dgs_fused_fwd(
            means, covars, quats, scales, opacities, viewmats, Ks, image_width, image_height, eps2d, near_plane,
            far_plane, radius_clip, calc_compensations, camera_model,
        )  # fmt: skip
        cameras, rows = (radii > 0).all(-1).nonzero().unbind(1)
        indptr = torch.cat([torch.zeros(1, dtype=torch.int64), cameras.bincount(minlength=len(viewmats)).cumsum(0)])
        values = [None if value is None else value[cameras, rows] for value in values]
        return indptr.int(), torch.zeros_like(rows), cameras, rows, radii[cameras, rows], *values

    @classmethod
    def projection_ewa_3dgs_packed_bwd(
        cls, means, covars, quats, scales, viewmats, Ks, image_width, image_height, eps2d, camera_model, batch_ids,
        camera_ids, gaussian_ids, conics, compensations, v_means2d, v_depths, v_conics, v_compensations,
        viewmats_requires_grad, sparse_grad,
    ):  # fmt: skip
        assert not sparse_grad

        def unpacked(rows):
            if rows is None:
                return None
            full = rows.new_zeros(len(viewmats), len(means), *rows.shape[1:])
            full[camera_ids, gaussian_ids] = rows
            return full

        radii = unpacked(torch.ones(len(gaussian_ids), 2, dtype=torch.int32))
        return cls.projection_ewa_3dgs_fused_bwd(
            means, covars, quats, scales, viewmats, Ks, image_width, image_height, eps2d, camera_model, radii,
            *map(unpacked, (conics, compensations, v_means2d, v_depths, v_conics, v_compensations)),
            viewmats_requires_grad,
        )  # fmt: skip

    @staticmethod
    def spherical_harmonics_fwd(degrees_to_use, dirs, coeffs, masks):
        from gsplat.cuda._torch_impl import _spherical_harmonics

        colors = torch.full_like(dirs, torch.nan)
        seen = torch.ones(dirs.shape[:-1], dtype=torch.bool) if masks is None else masks
        colors[seen] = _spherical_harmonics(degrees_to_use, dirs[seen], coeffs[seen])
        return colors

    @staticmethod
    def spherical_harmonics_bwd(K, degrees_to_use, dirs, coeffs, masks, v_colors, compute_v_dirs):
        from gsplat.cuda._torch_impl import _spherical_harmonics

        seen = torch.ones(dirs.shape[:-1], dtype=torch.bool) if masks is None else masks
        assert coeffs.shape[-2] == K
        leaves = [tensor[seen].detach().requires_grad_() for tensor in (coeffs, dirs)]
        v_coeffs, v_dirs = torch.zeros_like(coeffs), torch.zeros_like(dirs)
        with torch.enable_grad():
            colors = _spherical_harmonics(degrees_to_use, leaves[1], leaves[0])
            found = torch.autograd.grad(colors, leaves, v_colors[seen], allow_unused=True)
        v_coeffs[seen] = found[0]
        if found[1] is not None:
            v_dirs[seen] = found[1]
        return v_coeffs, v_dirs if compute_v_dirs else None

    @staticmethod
    def intersect_tile(
        means2d,
        radii,
        depths,
        image_ids,
        gaussian_ids,
        I,  # noqa: E741  the name that gsplat calls it by
        tile_size,
        tile_width,
        tile_height,
        sort,
        segmented,
    ):
        assert sort and not segmented
        packed = means2d.ndim == 2
        images = image_ids if packed else torch.arange(I).repeat_interleave(means2d.shape[-2])
        means2d, radii = means2d.reshape(-1, 2), radii.reshape(-1, 2)
        most = torch.tensor([tile_width, tile_height])
        seen = (radii > 0).all(1)
        first = ((means2d - radii) / tile_size).floor().nan_to_num(0).clamp(min=0).minimum(most).long()
        end = ((means2d + radii) / tile_size).ceil().nan_to_num(0).clamp(min=0).minimum(most).long()
        count = ((end - first).prod(1) * seen).int()
        # Depths are positive, so that their bits are in their order.
        depth_bits = depths.reshape(-1).contiguous().view(torch.int32).tolist()
        tile_bits = (tile_width * tile_height).bit_length()
        pairs = [
            ((image << tile_bits | y * tile_width + x) << TILE_BITS | depth_bits[row], row)
            for row, image in enumerate(images.tolist())
            if count[row] > 0
            for y in range(int(first[row, 1]), int(end[row, 1]))
            for x in range(int(first[row, 0]), int(end[row, 0]))
        ]
        pairs.sort(key=lambda pair: pair[0])  # stable: equal depths stay in order of their rows
        keys = torch.tensor([key for key, _ in pairs], dtype=torch.int64)
        return count.reshape(depths.shape), keys, torch.tensor([row for _, row in pairs], dtype=torch.int32)

    @staticmethod
    def intersect_offset(isect_ids, I, tile_width, tile_height):  # noqa: E741
        tile_bits = (tile_width * tile_height).bit_length()
        tiles = torch.arange(tile_height * tile_width)
        keys = (torch.arange(I)[:, None] << tile_bits | tiles) << TILE_BITS
        return torch.searchsorted(isect_ids, keys).int().reshape(I, tile_height, tile_width)

    @classmethod
    def rasterize_to_pixels_3dgs_fwd(
        cls, means2d, conics, colors, opacities, backgrounds, masks, image_width, image_height, tile_size, tile_offsets,
        flatten_ids,
    ):  # fmt: skip
        assert masks is None
        I = tile_offsets.shape[:-2].numel()  # noqa: E741
        values = [tensor.reshape(-1, *more) for tensor, more in _flattened(means2d, conics, colors, opacities)]
        channels = colors.shape[-1]
        renders, alphas = torch.empty(I, image_height, image_width, channels), torch.empty(I, image_height, image_width)
        for image, (y, x), rows in _tiles(tile_offsets, flatten_ids, image_width, image_height, tile_size):
            m2, conic, color, opacity = (tensor[rows] for tensor in values)
            out, left = _blend(m2, conic, color, opacity, _pixels(y, x))
            if backgrounds is not None:
                out = out + left[:, None] * backgrounds.reshape(I, channels)[image]
            renders[image, y, x] = out.reshape(y.stop - y.start, x.stop - x.start, channels)
            alphas[image, y, x] = (1 - left).reshape(y.stop - y.start, x.stop - x.start)
        shape = (*tile_offsets.shape[:-2], image_height, image_width)
        return renders.reshape(*shape, channels), alphas.reshape(*shape, 1), torch.zeros(shape, dtype=torch.int32)

    @classmethod
    def rasterize_to_pixels_3dgs_bwd(
        cls, means2d, conics, colors, opacities, backgrounds, masks, image_width, image_height, tile_size, tile_offsets,
        flatten_ids, render_alphas, last_ids, v_render_colors, v_render_alphas, absgrad,
    ):  # fmt: skip
        inputs = (means2d, conics, colors, opacities)
        values = [tensor.reshape(-1, *more) for tensor, more in _flattened(*inputs)]
        v_means2d, v_conics, v_colors, v_opacities = sums = [torch.zeros_like(value) for value in values]
        v_means2d_abs = torch.zeros_like(v_means2d)
        I, channels = tile_offsets.shape[:-2].numel(), colors.shape[-1]  # noqa: E741
        v_image = v_render_colors.reshape(I, image_height, image_width, channels)
        v_alpha = v_render_alphas.reshape(I, image_height, image_width)
        for image, (y, x), rows in _tiles(tile_offsets, flatten_ids, image_width, image_height, tile_size):
            pixels = _pixels(y, x)
            v_out, v_a = v_image[image, y, x].reshape(-1, channels), v_alpha[image, y, x].reshape(-1)
            leaves = [tensor[rows].detach() for tensor in values]
            # One copy of every mean for each pixel: the absolute values are summed over pixels.
            leaves[0] = leaves[0].expand(len(pixels), -1, -1).clone()
            leaves = [leaf.requires_grad_() for leaf in leaves]
            with torch.enable_grad():
                out, left = _blend(*leaves, pixels)
                if backgrounds is not None:
                    out = out + left[:, None] * backgrounds.reshape(I, channels)[image].detach()
                v_m2, *found = torch.autograd.grad((out, 1 - left), leaves, (v_out, v_a))
            for total, part in zip(sums, (v_m2.sum(0), *found), strict=True):
                total.index_add_(0, rows, part)
            v_means2d_abs.index_add_(0, rows, v_m2.abs().sum(0))
        shaped = [total.reshape(value.shape) for total, value in zip(sums, inputs, strict=True)]
        return v_means2d_abs.reshape(means2d.shape) if absgrad else None, *shaped


def _flattened(means2d, conics, colors, opacities):
    """Each with the shape of one row."""
    return (means2d, (2,)), (conics, (3,)), (colors, (colors.shape[-1],)), (opacities, ())


def _tiles(tile_offsets, flatten_ids, width, height, size):
    """(image, (rows of pixels, columns of pixels), Gaussians' rows in drawing order) of every tile."""
    tile_height, tile_width = tile_offsets.shape[-2:]
    begins = [*tile_offsets.reshape(-1).tolist(), len(flatten_ids)]
    for tile, (begin, end) in enumerate(zip(begins[:-1], begins[1:], strict=True)):
        image, (row, column) = tile // (tile_height * tile_width), divmod(tile % (tile_height * tile_width), tile_width)
        y = slice(row * size, min((row + 1) * size, height))
        x = slice(column * size, min((column + 1) * size, width))
        yield image, (y, x), flatten_ids[begin:end].long()


def _pixels(y: slice, x: slice) -> torch.Tensor:
    """[p, 2] centres."""
    rows, columns = torch.meshgrid(torch.arange(y.start, y.stop), torch.arange(x.start, x.stop), indexing="ij")
    return torch.stack([columns, rows], dim=-1).reshape(-1, 2) + 0.5


def _blend(means2d, conics, colors, opacities, pixels):
    """Colours [p, channels] and remaining transmittance [p] of Gaussians in drawing order."""
    dx, dy = (means2d.double() - pixels[:, None, :]).unbind(-1)
    a, b, c = conics.double().unbind(-1)
    sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    raw = torch.where(sigma >= 0, opacities * torch.exp(-sigma), 0.0)
    weights, left = blend_weights(raw)
    return (weights @ colors.double()).float(), left.float()
