"""Make the plots' Chinese font, apt_model/review/AptSansSC.otf, from Debian's fonts-noto-cjk.

    pip install fonttools                     # matplotlib brings it
    python scripts/make_font.py               # some ten seconds

A subset of Noto Sans CJK SC Regular: every character of GB 2312 (7,445). The family gets its own name, because the OFL
reserves "Source", and under Noto's name a system font would be picked silently. Run it again only for other characters.
"""

import argparse
from pathlib import Path

from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTCollection, TTFont

NOTO = Path("/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc")
MADE = Path(__file__).parent.parent / "apt_model" / "review" / "AptSansSC.otf"
FAMILY = "Apt Sans SC"
NAMES = {1: FAMILY, 2: "Regular", 3: "AptSansSC-Regular", 4: FAMILY, 5: "Version 1.0", 6: "AptSansSC-Regular"}
KEPT_NAMES = (0, 13, 14)  # copyright, licence, where it stands


def gb2312() -> set[int]:
    """The code points of GB 2312's 94 by 94 table."""
    pairs = (bytes([row, cell]) for row in range(0xA1, 0xFF) for cell in range(0xA1, 0xFF))
    return {ord(text) for pair in pairs if (text := pair.decode("gb2312", "ignore"))}


def simplified_chinese(collection: TTCollection) -> TTFont:
    """The font with the mainland Chinese glyphs."""
    return next(font for font in collection.fonts if font["name"].getDebugName(1) == "Noto Sans CJK SC")


def main() -> None:
    """Subset the font, rename it, write it."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    font = simplified_chinese(TTCollection(NOTO))
    options = Options(layout_features=[], hinting=False, glyph_names=False, name_IDs=KEPT_NAMES, notdef_outline=True)
    subsetter = Subsetter(options)
    subsetter.populate(unicodes=gb2312())
    subsetter.subset(font)
    for number, name in NAMES.items():
        font["name"].setName(name, number, 3, 1, 0x409)
    top = font["CFF "].cff
    top.fontNames = [NAMES[6]]
    top.topDictIndex[0].FullName, top.topDictIndex[0].FamilyName = FAMILY, FAMILY
    font["head"].modified = font["head"].created  # reproducible bytes
    font.recalcTimestamp = False
    font.save(MADE)
    print(f"{MADE}: {len(font.getBestCmap()):,} characters, {MADE.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
