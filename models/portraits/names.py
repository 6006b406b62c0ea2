"""Names for made-up people."""

__all__ = ["person_name"]

_FIRST_NAMES = """
Ada Basil Cleo Dorian Edda Fabian Greta Hugo Imre Juno Kasper Lena Milo Nadia Orla Percy Quinn Rosa Silas Tamsin Ugo Vera Wanda
Xaver Yara Zeno Agnes Bruno Cora Dexter Elsa Felix Gilda Hector Ines Jasper Kira Leo Maeve Nils Odile Piers Ramona Stellan Thea
Ulla Viggo Willa Yorick Zora
"""
_LAST_NAMES = """
Quill Marsh Larkin Thorne Vale Brook Ashdown Pepper Holloway Finch Copper Wren Alder Birch Cask Dunmore Elmwood Farrow Gable Heron
Inkwell Juniper Kestrel Lantern Mallow Nettle Oakley Plover Rook Saffron Tansy Umber Velvet Wicker Yarrow Zephyr Amber Bramble
Clover Drift Ember Flint Garnet Hazel Ivory Jasmine Linden Merle Onyx Poppy
"""
_FIRST = tuple(_FIRST_NAMES.split())
_LAST = tuple(_LAST_NAMES.split())
_STRIDE = (
    1009  # prime to the number of pairs, so that they repeat only after all are used, and neighbours share no word
)


def person_name(seed: int) -> str:
    """A first and a last name in ASCII letters with one space; 2,500 consecutive seeds have different ones."""
    place = seed * _STRIDE % (len(_FIRST) * len(_LAST))
    return f"{_FIRST[place // len(_LAST)]} {_LAST[place % len(_LAST)]}"
