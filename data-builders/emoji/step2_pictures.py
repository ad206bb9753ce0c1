"""Draw the images: both styles at encoder size, 64x64 thumbnails, and a checksum per image."""

import hashlib
import io
import zipfile

import numpy as np
from common import EMOJI_TEST, FLUENT_3D, NOTO_FONT, WORK, key_of, read_json, write_json
from PIL import Image, ImageDraw, ImageFont

ENCODER_SIZE = 224
THUMBNAIL_SIZE = 64
THUMBNAIL_QUALITY = 80


def qualified_text() -> dict[str, str]:
    """Return key -> fully qualified sequence, which the font requires."""
    found: dict[str, str] = {}
    for line in EMOJI_TEST.read_text(encoding="utf-8").splitlines():
        if "; fully-qualified" in line:
            text = "".join(chr(int(p, 16)) for p in line.split(";")[0].split())
            found[key_of(text)] = text
    return found


def noto(text: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """Draw one bitmap glyph of the font, centered on a square transparent canvas."""
    if not 130 <= font.getlength(text) <= 142:
        raise ValueError(f"the font has no single glyph for {text!r}: width {font.getlength(text)}")
    canvas = Image.new("RGBA", (256, 256))
    ImageDraw.Draw(canvas).text((60, 60), text, font=font, embedded_color=True)
    glyph = canvas.crop(canvas.getbbox())
    if max(glyph.size) > 136:
        raise ValueError(f"{text!r} is larger than a glyph: {glyph.size}")
    square = Image.new("RGBA", (136, 136))
    square.paste(glyph, ((136 - glyph.width) // 2, (136 - glyph.height) // 2))
    return square


def on_white(picture: Image.Image, size: int) -> np.ndarray:
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture)
    return np.asarray(white.convert("RGB").resize((size, size), Image.Resampling.BICUBIC))


def thumbnail(picture: Image.Image) -> bytes:
    # Premultiply alpha before shrinking; otherwise the color of transparent pixels bleeds into the edge.
    small = picture.convert("RGBa").resize((THUMBNAIL_SIZE, THUMBNAIL_SIZE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.convert("RGBA").save(out, "WEBP", quality=THUMBNAIL_QUALITY, alpha_quality=80, method=6)
    return out.getvalue()


def main() -> None:
    items = read_json("items.json")
    texts = qualified_text()
    font = ImageFont.truetype(str(NOTO_FONT), 109, layout_engine=ImageFont.Layout.RAQM)
    kept, pictures, files = [], {"image": [], "drawing": []}, {}
    for item in items:
        fluent = Image.open(FLUENT_3D / item["fluent_3d"]).convert("RGBA")
        try:
            drawn = noto(texts[item["key"]], font)
        except ValueError as error:
            print("dropped:", item["name"], error)
            continue
        for kind, picture in (("image", fluent), ("drawing", drawn)):
            pictures[kind].append(on_white(picture, ENCODER_SIZE))
            files[f"{kind}/{len(kept)}.webp"] = thumbnail(picture)  # named by row, as reports expect
            item[f"{kind}_sha256"] = hashlib.sha256(pictures[kind][-1].tobytes()).hexdigest()
        kept.append(item)
    write_json("items_with_pictures.json", kept)
    for kind, rows in pictures.items():
        np.save(WORK / f"{kind}_pixels.npy", np.stack(rows))
    with zipfile.ZipFile(WORK / "thumbnails.zip", "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), files[name])
    for kind in pictures:
        print(kind, sum(len(v) for k, v in files.items() if k.startswith(kind)), "bytes of thumbnails")
    print(len(kept), "items with both images")


if __name__ == "__main__":
    main()
