"""Drawn people: seeded, made-up persons and pictures of them, so that no photo of anybody need ship.

`draw_person` makes what is permanent, `draw_portrait` and `draw_group` add what changes from picture to picture.
Everything follows from the seeds: the same ones give the same bytes.
"""

from models.portraits.person import Person, draw_person
from models.portraits.picture import draw_group, draw_portrait

__all__ = ["Person", "draw_group", "draw_person", "draw_portrait"]
