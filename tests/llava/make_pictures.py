#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make_pictures.py OUT_DIR: one small picture of every kind, and beside each NAME.rgb.png with what PIL's convert("RGB") makes of it.

Further resized_WxH.png, framed_*.png: what PIL's bicubic resize and CLIPImageProcessor's steps make of rgb.png. Needs pillow (13: older ones order the two
passes of some resizes otherwise) and numpy. PNG kinds that
PIL cannot write are written here. grey16.rgb.png and its like hold the upper bytes: PIL itself clips 16-bit greys at 255, so that all but the darkest
are white.
"""

import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
SAMPLES = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def rows(samples, depth):
    """Filter 0 and the packed bits of each row of [height, width, samples]."""
    out = b""
    for row in samples.reshape(samples.shape[0], -1):
        if depth == 16:
            out += b"\0" + row.astype(">u2").tobytes()
        elif depth == 8:
            out += b"\0" + row.astype(np.uint8).tobytes()
        else:
            bits = ((row[:, None] >> np.arange(depth - 1, -1, -1)) & 1).astype(np.uint8)
            out += b"\0" + np.packbits(bits.reshape(-1)).tobytes()
    return out


def png(samples, colour, depth, interlaced=False, **chunks):
    height, width = samples.shape[:2]
    samples = samples.reshape(height, width, SAMPLES[colour])
    parts = [samples[y::dy, x::dx] for x, y, dx, dy in ADAM7] if interlaced else [samples]
    data = b"".join(rows(part, depth) for part in parts if part.size)
    out = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced)))
    for kind in ("gAMA", "PLTE", "tRNS"):
        if kind in chunks:
            out += chunk(kind.encode(), chunks[kind])
    return out + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")


def scene(width, height):
    """Edges, gradients and noise."""
    noise = np.random.RandomState(7).randint(0, 40, (height, width, 3))
    y, x = np.mgrid[:height, :width]
    base = np.stack([x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), ((x // 5 + y // 4) % 2) * 255], -1)
    return np.clip(base + noise - 20, 0, 255).astype(np.uint8)


def center_crop(image, height, width):
    """transformers' image_transforms.center_crop on [height, width, channels]."""
    h, w = image.shape[:2]
    top, left = (h - height) // 2, (w - width) // 2
    if top >= 0 and top + height <= h and left >= 0 and left + width <= w:
        return image[top:top + height, left:left + width]
    new_h, new_w = max(height, h), max(width, w)
    out = np.zeros((new_h, new_w, 3), np.uint8)
    top_pad, left_pad = -((h - new_h) // 2), -((w - new_w) // 2)  # rounded up
    out[top_pad:top_pad + h, left_pad:left_pad + w] = image
    top, left = top + top_pad, left + left_pad
    return out[max(0, top):min(new_h, top + height), max(0, left):min(new_w, left + width)]


def shorter_edge(image, edge):
    short, long = sorted(image.size)
    other = int(edge * long / short)
    return image.resize((edge, other) if image.width <= image.height else (other, edge), Image.BICUBIC)


def expand_to_square(image, colour):
    """As the original LLaVA code."""
    side = max(image.size)
    out = Image.new("RGB", (side, side), colour)
    out.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return out


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    width, height = 41, 30
    rgb = scene(width, height)
    grey, alpha = rgb[..., 0], np.roll(rgb[..., 1], 3)
    wide = lambda a: a.astype(np.int64) * 256 + (a.astype(np.int64) * 37 + 11) % 256  # 16 bits whose lower bytes say nothing
    palette = bytes(np.random.RandomState(3).randint(0, 256, 768).astype(np.uint8))

    pictures = {"rgb": png(rgb, RGB, 8), "rgb_interlaced": png(rgb, RGB, 8, True), "rgb16": png(wide(rgb), RGB, 16),
                "rgb_gamma": png(rgb, RGB, 8, gAMA=struct.pack(">I", 45455)), "rgb_transparent": png(rgb, RGB, 8, tRNS=b"\0\xff\0\0\0\0"),
                "rgb_alpha": png(np.dstack([rgb, alpha]), RGB_ALPHA, 8), "rgb_alpha16": png(wide(np.dstack([rgb, alpha])), RGB_ALPHA, 16),
                "grey_alpha": png(np.dstack([grey, alpha]), GREY_ALPHA, 8), "grey_alpha16": png(wide(np.dstack([grey, alpha])), GREY_ALPHA, 16),
                "grey_transparent": png(grey, GREY, 8, tRNS=b"\0\x20"), "grey16": png(wide(grey), GREY, 16),
                "one_pixel": png(rgb[:1, :1], RGB, 8), "one_grey_pixel": png(grey[:1, :1] & 1, GREY, 1)}
    for depth in (1, 2, 4, 8):
        pictures[f"grey{depth}"] = png(grey >> (8 - depth), GREY, depth, depth == 4)
        pictures[f"palette{depth}"] = png(grey >> (8 - depth), PALETTE, depth, depth == 2, PLTE=palette[:3 << depth])
    pictures["palette_transparent"] = png(grey, PALETTE, 8, PLTE=palette, tRNS=bytes(range(200)))
    for name, data in pictures.items():
        (out / f"{name}.png").write_bytes(data)

    image = Image.fromarray(rgb)
    for name, how in {"420": {"subsampling": 2}, "422": {"subsampling": 1}, "444": {"subsampling": 0},
                      "progressive": {"progressive": True, "subsampling": 2}, "coarse": {"quality": 5},
                      "restarts": {"restart_marker_blocks": 2}}.items():
        image.save(out / f"jpeg_{name}.jpg", quality=how.pop("quality", 80), **how)
    image.convert("L").save(out / "jpeg_grey.jpg", quality=80)
    image.convert("CMYK").save(out / "jpeg_inks.jpg", quality=90)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned, which PIL's convert does not do
    image.save(out / "jpeg_turned.jpg", quality=80, exif=exif)

    for path in sorted(out.iterdir()):
        if path.suffix in (".png", ".jpg") and not path.stem.endswith(".rgb") and not path.stem.startswith(("resized_", "framed_")):
            read = Image.open(path)
            if read.mode.startswith("I;16"):
                read = Image.fromarray((np.asarray(read) >> 8).astype(np.uint8))
            read.convert("RGB").save(out / f"{path.stem}.rgb.png", optimize=True)

    for size in ((7, 5), (41, 13), (13, 30), (97, 61), (1, 1), (3, 150), (150, 3), (82, 60), (39, 26), (39, 25)):
        image.resize(size, Image.BICUBIC).save(out / f"resized_{size[0]}x{size[1]}.png", optimize=True)
    for edge, crop in ((24, 20), (24, 24), (20, 31), (20, 26), (16, 23)):
        for name, start in (("wide", image), ("tall", image.transpose(Image.ROTATE_90))):
            framed = center_crop(np.asarray(shorter_edge(start, edge)), crop, crop)
            Image.fromarray(framed).save(out / f"framed_{name}_{edge}_{crop}.png", optimize=True)
    for name, start in (("wide", image), ("tall", image.transpose(Image.ROTATE_90))):
        padded = expand_to_square(start, tuple(int(x * 255) for x in (0.48145466, 0.4578275, 0.40821073)))
        Image.fromarray(center_crop(np.asarray(shorter_edge(padded, 24)), 24, 24)).save(out / f"framed_padded_{name}.png", optimize=True)


if __name__ == "__main__":
    main()
