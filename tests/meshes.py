"""Small mesh files written by hand: what stands in them is known without the library that reads them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

COMPONENTS = {"f": 5126, "B": 5121, "H": 5123, "I": 5125}
KINDS = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}


class Gltf:
    """A glTF 2.0 file in the making: its tree, and one binary buffer."""

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {"asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}]}
        self.tree |= {name: [] for name in ("nodes", "meshes", "accessors", "bufferViews")}
        self.data = b""

    def add(self, section: str, row: dict[str, Any]) -> int:
        """Its number in ``section``."""
        self.tree.setdefault(section, []).append(row)
        return len(self.tree[section]) - 1

    def view(self, data: bytes) -> int:
        self.data += bytes(-len(self.data) % 4)
        view = self.add("bufferViews", {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data)})
        self.data += data
        return view

    def accessor(self, values: Any, dtype: str) -> int:
        """``values`` [n] or [n, k] as numbers of ``dtype`` ("f4", "u1", "u2"); whole numbers in rows are normalised."""
        array = np.asarray(values, dtype)
        row = {"bufferView": self.view(array.tobytes()), "componentType": COMPONENTS[array.dtype.char]}
        row |= {"count": len(array), "type": KINDS[1 if array.ndim == 1 else array.shape[1]]}
        if array.ndim == 2 and array.dtype.kind == "u":
            row["normalized"] = True
        if array.ndim == 2 and array.shape[1] == 3 and array.dtype.kind == "f":
            row |= {"min": array.min(axis=0).tolist(), "max": array.max(axis=0).tolist()}
        return self.add("accessors", row)

    def primitive(self, xyz: Any, triangles: Any = None, **more: Any) -> dict[str, Any]:
        """``more``: material and mode; uv [n, 2]; colours [n, 3 or 4] with their dtype."""
        attributes = {"POSITION": self.accessor(xyz, "f4")}
        if "uv" in more:
            attributes["TEXCOORD_0"] = self.accessor(more.pop("uv"), "f4")
        if "colours" in more:
            attributes["COLOR_0"] = self.accessor(*more.pop("colours"))
        if triangles is not None:
            more["indices"] = self.accessor(np.asarray(triangles).ravel(), "u2")
        return {"attributes": attributes, **more}

    def mesh(self, *primitives: dict[str, Any]) -> int:
        return self.add("meshes", {"primitives": list(primitives)})

    def material(self, factor: tuple[float, ...] | None = None, png: bytes | None = None) -> int:
        """With a base colour ``factor`` (linear, RGBA) and an embedded texture ``png``."""
        row: dict[str, Any] = {} if factor is None else {"baseColorFactor": list(factor)}
        if png is not None:
            image = self.add("images", {"bufferView": self.view(png), "mimeType": "image/png"})
            row["baseColorTexture"] = {"index": self.add("textures", {"source": image})}
        return self.add("materials", {"pbrMetallicRoughness": row})

    def write(self, path: Path) -> Path:
        """As .glb, or as .gltf with the buffer beside it."""
        if path.suffix == ".gltf":
            path.with_suffix(".bin").write_bytes(self.data)
            buffers = [{"byteLength": len(self.data), "uri": path.with_suffix(".bin").name}]
            path.write_text(json.dumps({**self.tree, "buffers": buffers}))
            return path
        text = json.dumps({**self.tree, "buffers": [{"byteLength": len(self.data)}]}).encode()
        text += b" " * (-len(text) % 4)
        data = self.data + bytes(-len(self.data) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(data), b"BIN\0") + data
        path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
        return path
