"""What comes in is decoded as a picture, or refused: five formats, few bytes, few pixels."""

import io
import warnings
from pathlib import Path

from PIL import Image

from fewstep.errors import ArgumentError
from fewstep.studio.bounds import UPLOAD_BYTES, UPLOAD_PIXELS

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")


def only_pictures() -> None:
    """Let Pillow open nothing but these formats in this process, and no picture that unpacks to more than allowed."""
    Image.init()
    for name in set(Image.OPEN) - set(FORMATS):
        del Image.OPEN[name]
    Image.ID[:] = [name for name in Image.ID if name in FORMATS]
    Image.MAX_IMAGE_PIXELS = UPLOAD_PIXELS // 2  # Pillow warns from here on and refuses twice as much


def picture_of(file: str | Path) -> Image.Image:
    """The picture in a file that somebody sent: RGB or greys, turned as its camera says, without transparency.

    Raises:
        ArgumentError: it is no picture of these formats, or too large.
    """
    try:
        size = Path(file).stat().st_size
        if size > UPLOAD_BYTES:
            raise ArgumentError(f"a picture may have at most {UPLOAD_BYTES // 2**20} MB, this has {size / 2**20:.1f}")
        return _decoded(Path(file).read_bytes())
    except OSError as error:
        raise ArgumentError(f"this is not a picture that can be read ({', '.join(FORMATS)}): {error}") from error


def _decoded(data: bytes) -> Image.Image:
    from PIL import ImageOps

    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            width, height = image.size
            if width * height > UPLOAD_PIXELS:
                raise ArgumentError(
                    f"a picture may have at most {UPLOAD_PIXELS:,} pixels, this has {width}×{height} = "
                    f"{width * height:,}"
                )
            image.load()
            whole = ImageOps.exif_transpose(image).convert("RGBA")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ArgumentError(f"a picture may have at most {UPLOAD_PIXELS:,} pixels: {error}") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise ArgumentError(f"this is not a picture that can be read ({', '.join(FORMATS)})") from error
    white = Image.new("RGBA", whole.size, "white")
    return Image.alpha_composite(white, whole).convert("RGB")
