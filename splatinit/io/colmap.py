"""Scene folders around a COLMAP model: ``sparse/0`` (or ``sparse``, or the folder itself) beside ``images``."""

from __future__ import annotations

from pathlib import Path

from ..errors import FormatError, NoImages
from ..types import ImageSet
from .colmap_model import ColmapModel, model_suffix, read_model
from .images import find_image, list_images, missing_images
from .lenses import lens_note
from .masks import masks_beside
from .read import ReadConfig, assemble
from .scenefiles import find_photo, inside, name_of, photo_folder, posed


def _model_folder(root: Path) -> Path | None:
    for folder in (root / "sparse" / "0", root / "sparse", root):
        if model_suffix(folder):
            return folder
    return None


def detect(path: Path) -> bool:
    return _model_folder(path) is not None


def read(path: Path, config: ReadConfig) -> ImageSet:
    """Read a scene folder: a model in ``sparse/0``, ``sparse`` or the folder itself, and photos in ``images_N`` (where
    it fits ``config.downscale``), ``images``, the largest ``images_N`` or the folder itself. Masks are those of
    ``masks`` or ``mask`` (see :func:`splatinit.io.masks.masks_beside`).

    Names of photos are COLMAP's, relative to the image folder. Photos of the folder that are not in the model are left
    out and counted, as are images of the model without a file.

    Raises:
        NoImages: none of the model's images exists.
        BadPoses, BadPoints: something is not finite.
        FormatError: a damaged file, or a camera model that is not read.
        SceneError: an image name leaves the image folder.
    """
    folder = _model_folder(path)
    if folder is None:
        raise FormatError(f"{path}: no COLMAP model in sparse/0, sparse or the folder itself.")
    model = read_model(folder)
    if not model.images:
        raise NoImages(f"{folder}: the COLMAP model has no images.", hint="Structure from motion registered nothing.")
    image_folder, left_to_do, folder_notes = photo_folder(path, config)
    # Names may be relative to the scene's folder instead ("images/0001.jpg"), and so may those of a folder called rgb.
    if image_folder is None or (
        not _any_photo(image_folder, model, config) and _any_photo(path, model, config)
    ):
        image_folder, left_to_do, folder_notes = path, config, []
    intrinsics = {key: cam.pinhole(f"{folder}, camera {key}") for key, cam in model.cameras.items()}

    photos, cameras, missing = [], {}, []
    for image in sorted(model.images.values(), key=lambda image: image.name):
        where = f"{folder}, image '{image.name}'"
        relative = inside(image_folder, image.name, where, config)
        photo = find_photo(image_folder, relative, name_of(relative))
        if photo is None:
            missing.append(image.name)
            continue
        camera = model.cameras[image.camera_id]
        K, distortion = intrinsics[image.camera_id]
        size = (camera.width, camera.height)
        photo, cameras[photo.name] = posed(photo, K, image.cam_from_world(where), size, distortion, where)
        photos.append(photo)
    if not photos:
        raise missing_images(f"{folder} (photos are looked for in {image_folder})", missing, len(missing))

    shown = "." if folder == path else folder.relative_to(path).as_posix()
    place = "." if image_folder == path else image_folder.name
    points = model.points.cloud() if len(model.points) else None
    if points is not None:
        points.check(f"{folder}, points3D")
    notes = [
        f"read as COLMAP: {place} + {shown} ({model_suffix(folder)[1:]}), {len(photos)} photos, "
        f"{len(model.points)} points" + lens_note(photo.lenses for photo in photos)
    ]
    notes += folder_notes
    if missing:
        notes.append(f"{len(missing)} of {len(model.images)} images of the model have no file and were skipped")
    outside = len(list_images(image_folder, recursive=image_folder != path)) - len(photos)
    if outside > 0:
        notes.append(f"{outside} photos of {place} are not in the model and are left out")
    photos, mask_notes = masks_beside(photos, path, image_folder, config)
    return assemble(
        root=path,
        format="colmap",
        photos=photos,
        cameras=cameras,
        config=left_to_do,
        notes=notes + mask_notes,
        points=points,
    )


def _any_photo(folder: Path, model: ColmapModel, config: ReadConfig) -> bool:
    names = (image.name for image in model.images.values())
    return any(find_image(folder / inside(folder, name, str(folder), config)) for name in names)
